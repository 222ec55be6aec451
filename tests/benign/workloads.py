# SPDX-License-Identifier: Apache-2.0
"""The benign workloads of the escape checklist: scripts in containers on a copy of the machine's root.

A script ends with status 0 only if the program did its work, so that a denied call is noticed.
`reported` names rules that may alert (they stop nothing on any kernel); any other alert is a failure.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["EXECS", "WORKLOADS", "Workload"]


class Workload(NamedTuple):
    """One container. `needs`: the programs it runs; `seconds`: how long it may take."""

    name: str
    script: str
    needs: tuple[str, ...]
    seconds: float = 60.0
    reported: frozenset[str] = frozenset()
    capabilities: tuple[str, ...] = ()  # besides Docker's default ones
    token: bool = False  # a service-account token is mounted, as in every pod
    network: bool = True  # loopback is up


_APT = """
mkdir -p /srv/repo /srv/pkg/DEBIAN /srv/pkg/usr/bin
printf 'Package: rfhello\\nVersion: 1.0\\nArchitecture: all\\nMaintainer: x <x@x>\\nDescription: x\\n' > /srv/pkg/DEBIAN/control
printf '#!/bin/sh\\nexit 0\\n' > /srv/pkg/DEBIAN/postinst; chmod 755 /srv/pkg/DEBIAN/postinst
printf '#!/bin/sh\\necho hello\\n' > /srv/pkg/usr/bin/rfhello; chmod 4755 /srv/pkg/usr/bin/rfhello
dpkg-deb --build /srv/pkg /srv/repo/rfhello_1.0_all.deb > /dev/null
cd /srv/repo; dpkg-scanpackages . > Packages 2>/dev/null
echo 'deb [trusted=yes] file:/srv/repo ./' > /srv/list
set -- -qq -o Dir::Etc::sourcelist=/srv/list -o Dir::Etc::sourceparts=/none -o Dpkg::Use-Pty=0
apt-get "$@" update
apt-get "$@" -y --no-install-recommends install rfhello
test "$(rfhello)" = hello
apt-get "$@" -y purge rfhello
"""

_PIP = """
mkdir -p /srv/w; cd /srv/w
python3 - <<'PY'
import zipfile
info = "rfpkg-1.0.dist-info"
files = {"rfpkg.py": "value = 7\\n", f"{info}/METADATA": "Metadata-Version: 2.1\\nName: rfpkg\\nVersion: 1.0\\n",
         f"{info}/WHEEL": "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"}
files[f"{info}/RECORD"] = "".join(f"{name},,\\n" for name in files) + f"{info}/RECORD,,\\n"
with zipfile.ZipFile("rfpkg-1.0-py3-none-any.whl", "w") as wheel:
    for name, text in files.items():
        wheel.writestr(name, text)
PY
/usr/bin/python3 -m venv /srv/venv
/srv/venv/bin/python -m pip -q --disable-pip-version-check install --no-index /srv/w/*.whl
test "$(/srv/venv/bin/python -c 'import rfpkg; print(rfpkg.value)')" = 7
"""

_MAKE = """
mkdir -p /srv/c; cd /srv/c
echo 'int seven(void) { return 7; }' > a.c
echo 'int seven(void); int main(void) { return seven() != 7; }' > b.c
printf 'all: a.o b.o\\n\\tgcc -o prog a.o b.o\\n%%.o: %%.c\\n\\tgcc -O2 -c -o $@ $<\\n' > Makefile
make -s -j2 && ./prog
"""

_NGINX = """
mkdir -p /srv/www; echo works > /srv/www/index.html
cat > /srv/nginx.conf <<'CONF'
worker_processes 2; error_log /dev/stderr; pid /srv/nginx.pid; daemon off;
events { worker_connections 64; }
http { access_log /dev/stdout; server { listen 127.0.0.1:8081; root /srv/www; sendfile on; } }
CONF
nginx -c /srv/nginx.conf & pid=$!
for try in $(seq 100); do curl -sf http://127.0.0.1:8081/ && break; sleep 0.1; done
test "$(curl -sf http://127.0.0.1:8081/)" = works
nginx -c /srv/nginx.conf -s reload; sleep 0.3
test "$(curl -sf http://127.0.0.1:8081/)" = works
kill -QUIT $pid; wait $pid
"""

_REDIS = """
cd /srv; redis-server --port 6390 --appendonly yes --appendfsync always --save '1 1' --dir /srv > /srv/log &
for try in $(seq 100); do redis-cli -p 6390 ping > /dev/null 2>&1 && break; sleep 0.1; done
redis-cli -p 6390 set key value; redis-benchmark -q -p 6390 -n 2000 -c 10 -t set,get
redis-cli -p 6390 bgsave; sleep 0.3; redis-cli -p 6390 bgrewriteaof; sleep 0.3
test "$(redis-cli -p 6390 get key)" = value
redis-cli -p 6390 shutdown; wait
"""

_POSTGRES = """
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1); export PATH=$bin:$PATH
mkdir -p /srv/pg; chown postgres: /srv/pg
setpriv --reuid postgres --regid postgres --init-groups sh -ec '
  initdb -D /srv/pg/data > /dev/null
  pg_ctl -D /srv/pg/data -o "-k /srv/pg -c fsync=on -c wal_sync_method=fdatasync" -w -l /srv/pg/log start > /dev/null
  psql -h /srv/pg -d postgres -qc "create table t as select generate_series(1, 20000) n; create index on t (n); checkpoint"
  test "$(psql -h /srv/pg -d postgres -Atc "select sum(n) from t where n <= 100")" = 5050
  psql -h /srv/pg -d postgres -qc "vacuum analyze t"
  pg_isready -h /srv/pg
  pg_ctl -D /srv/pg/data -w stop > /dev/null'
"""

_JVM = """
cd /srv; keytool -genkeypair -alias a -keyalg RSA -keysize 2048 -dname CN=a -storepass changeit -keystore s.p12
keytool -list -keystore s.p12 -storepass changeit | grep -q PrivateKeyEntry
java -XX:+UseG1GC -Xshare:auto -XX:NativeMemoryTracking=summary -version
"""

_NODE = """
cat > /srv/w.js <<'JS'
const { Worker, isMainThread, parentPort } = require('worker_threads');
const fs = require('fs'), crypto = require('crypto'), http = require('http'), zlib = require('zlib');
if (!isMainThread) { parentPort.postMessage(crypto.pbkdf2Sync('a', 'b', 1000, 32, 'sha256').length); return; }
const workers = [1, 2, 3, 4].map(() => new Promise((done) => new Worker(__filename).on('message', done)));
const server = http.createServer((q, a) => fs.createReadStream(__filename).pipe(zlib.createGzip()).pipe(a));
server.listen(8082, '127.0.0.1', async () => {
  const sizes = await Promise.all(workers);
  http.get('http://127.0.0.1:8082/', (answer) => answer.resume().on('end', () => {
    fs.promises.writeFile('/srv/out', String(sizes)).then(() => process.exit(String(sizes) === '32,32,32,32' ? 0 : 1));
  }));
});
JS
node /srv/w.js
"""

_CHROMIUM = """
echo '<p id=x>a</p><script>x.textContent = 6 * 7</script>' > /srv/page.html
HOME=/srv chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --virtual-time-budget=2000 \
  --user-data-dir=/srv/profile --dump-dom file:///srv/page.html 2> /srv/err | grep -q '>42<' || { tail -n 5 /srv/err; exit 1; }
"""

_GIT = """
cd /srv; git init -q a; cd a; git config user.email x@x; git config user.name x
seq 1000 > f; git add f; git commit -qm one; git gc -q
git clone -q /srv/a /srv/b; git clone -q --no-local --depth 1 file:///srv/a /srv/c
cmp /srv/a/f /srv/b/f; cmp /srv/a/f /srv/c/f
"""

_CRON = """
rm -f /run/crond.reboot  # marks the first start
echo '@reboot root /bin/touch /srv/ran' > /etc/cron.d/rftest; chmod 644 /etc/cron.d/rftest
cron -f & pid=$!
for try in $(seq 1300); do [ -e /srv/ran ] && break; sleep 0.1; done
kill $pid; test -e /srv/ran
"""

_SIDECAR = """
python3 - <<'PY'
import time
for _ in range(5):
    token = open("/var/run/secrets/kubernetes.io/serviceaccount/token").read()
    assert token.startswith("ey"), token
    time.sleep(0.05)
PY
"""

_PRIVILEGES = """
setpriv --reuid 1000 --regid 1000 --clear-groups --no-new-privs --inh-caps=-all id -u | grep -qx 1000
capsh --drop=cap_net_raw,cap_sys_chroot -- -c 'id -u' | grep -qx 0
capsh --user=nobody -- -c 'id -un' | grep -qx nobody
su -s /bin/sh nobody -c 'id -un' | grep -qx nobody
runuser -u nobody -- id -un | grep -qx nobody
python3 -c 'import os; os.setgroups([]); os.setresgid(9, 9, 9); os.setresuid(9, 9, 9); assert os.getuid() == 9'
cp /bin/true /srv/t; chmod 2755 /srv/t; /srv/t
"""

_STRACE = """
strace -f -o /srv/trace sh -c 'ls /etc > /dev/null; cat /etc/hostname' > /dev/null
grep -q execve /srv/trace
"""

WORKLOADS = (
    Workload("apt", _APT, ("apt-get", "dpkg-scanpackages"), 120, reported=frozenset({"setuid-file"})),
    Workload("pip", _PIP, ("python3",), 120),
    Workload("make", _MAKE, ("gcc", "make")),
    Workload("nginx", _NGINX, ("nginx", "curl")),
    Workload("redis", _REDIS, ("redis-server",)),
    Workload("postgres", _POSTGRES, ("psql", "setpriv"), 120),
    Workload("jvm", _JVM, ("java", "keytool"), 120),
    Workload("node", _NODE, ("node",), reported=frozenset({"io-uring"})),
    Workload("chromium", _CHROMIUM, ("chromium",), 120),
    Workload("git", _GIT, ("git",)),
    Workload("cron", _CRON, ("cron",), 150),
    Workload("sidecar", _SIDECAR, ("python3",), token=True),
    Workload("privileges", _PRIVILEGES, ("setpriv", "capsh", "su", "runuser")),
    Workload("strace", _STRACE, ("strace",), capabilities=("CAP_SYS_PTRACE",)),
)

#: what a runtime executes in a running container: shells and health checks, one after the other
EXECS = (
    "id; ls -la /; ps ax 2>/dev/null || ls /proc; cat /etc/os-release; df -h > /dev/null; env",
    "cat /proc/self/status /proc/meminfo /proc/loadavg /proc/self/mountinfo > /dev/null",
    "test -e /etc/passwd && exit 0",
    "echo > /dev/null; head -c 8 /dev/urandom > /dev/null; : > /tmp/x; rm /tmp/x",
    "bash -ic 'echo $BASH_VERSION; stty size || true' < /dev/null",
    "vi --version > /dev/null 2>&1 || true; getent passwd root; getent hosts localhost",
)
