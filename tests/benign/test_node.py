# SPDX-License-Identifier: Apache-2.0
"""Workloads that belong to a node: log shippers, monitors, network and storage plug-ins, inner engines.

The first three run under the unmodified pack. The others have the exceptions of policies/README.md,
for their container alone.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.benign.machine import host_root, new_bundle
from tests.benign.running import need, not_affected
from tests.support import force
from tests.support.agent import Agent, running_agent
from tests.support.cgroups import is_pure_v2
from tests.support.container import Bundle
from tests.support.policies import PACK

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.needs("runc")]

NAME = "rf-node-agent"
INVARIANTS = "invariants.yaml"  # also about events of the host


class NodeWork(NamedTuple):
    """One container: its script, what it has besides an ordinary one, and the rules that may alert."""

    name: str
    script: str
    needs: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    binds: tuple[tuple[str, str], ...] = ()  # of the host, path inside
    shared: tuple[str, ...] = ()  # namespaces of the host
    devices: tuple[tuple[str, int, int], ...] = ()
    reported: frozenset[str] = frozenset()
    modules: tuple[str, ...] = ()  # of the kernel; in a guest no udev loads them
    excepted: bool = False  # has the exceptions of policies/README.md
    guest: bool = False  # changes the host's network or mounts


_SHIPPER = """
python3 - <<'PY'
import glob, os, select, sqlite3
for path in glob.glob("/var/log/**", recursive=True):
    if os.path.isfile(path):
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
store = sqlite3.connect("/var/log/rfshipper.db")
store.execute("create table positions (path text, offset integer)")
store.commit()
with open("/var/log/rfshipper.log", "a+") as log:
    log.write("one line\\n"); log.flush(); log.seek(0)
    assert log.read() == "one line\\n"
for name in glob.glob("/var/log/rfshipper*"):
    os.unlink(name)
PY
tail -n 1 /var/log/dpkg.log > /dev/null 2>&1 || true
"""

_EXPORTER = """
python3 - <<'PY'
import glob, os
for name in "stat meminfo diskstats loadavg net/dev 1/mounts 1/mountinfo sys/fs/file-nr".split():
    open("/host/proc/" + name).read()
seen = 0
for path in glob.glob("/host/proc/[0-9]*"):
    for name in ("stat", "status", "cmdline", "cgroup", "limits", "comm"):
        try:
            open(path + "/" + name, "rb").read()
            seen += 1
        except (FileNotFoundError, ProcessLookupError):
            pass
assert seen > 10
for name in glob.glob("/host/sys/class/net/*/mtu") + glob.glob("/host/sys/class/thermal/*/temp"):
    try:
        open(name).read()
    except OSError:
        pass
os.statvfs("/host/root")
os.listdir("/host/root")
open("/host/root/etc/os-release").read()
PY
"""

_DEVICES = """
python3 - <<'PY'
import fcntl, os, struct
for path in ("/dev/fuse", "/dev/net/tun"):
    os.close(os.open(path, os.O_RDWR))
tun = os.open("/dev/net/tun", os.O_RDWR)
try:
    fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"rfben0", 0x1001))
except PermissionError:
    raise SystemExit("no tun interface")
PY
"""

_CNI = """
ip link add rfcni0 type bridge
ip link add rfcni1 type veth peer name rfcni2
ip link set rfcni1 master rfcni0; ip link set rfcni1 up; ip link set rfcni0 up
ip address add 10.98.0.1/24 dev rfcni0
ip route add 10.98.1.0/24 via 10.98.0.9 dev rfcni0 onlink
echo 1 > /proc/sys/net/ipv4/conf/rfcni0/proxy_arp
nft add table ip rfcni
nft add chain ip rfcni post '{ type nat hook postrouting priority 100; }'
nft add rule ip rfcni post ip saddr 10.98.0.0/24 masquerade
unshare -n true
nsenter --net=/proc/1/ns/net ip link show rfcni0 > /dev/null
printf '{}' > /etc/cni/net.d/10-rf.conflist; cp /bin/true /opt/cni/bin/rfplugin
rm /etc/cni/net.d/10-rf.conflist /opt/cni/bin/rfplugin
nft delete table ip rfcni; ip link delete rfcni1; ip link delete rfcni0
"""

_CSI = """
d=/var/lib/kubelet/pods/rfbenign/volumes/kubernetes.io~csi/pvc/mount
mkdir -p $d /var/lib/kubelet/plugins/rfcsi
python3 -c 'import socket as s; s.socket(s.AF_UNIX).bind("/var/lib/kubelet/plugins/rfcsi/csi.sock")'
truncate -s 16M /srv/image; mkfs.ext4 -q -F /srv/image
mount -o loop /srv/image $d
echo data > $d/file; test "$(cat $d/file)" = data; chown 1000:1000 $d/file
mount --bind $d /srv/other 2>/dev/null || { mkdir /srv/other; mount --bind $d /srv/other; }
umount /srv/other; umount $d
rm -rf /var/lib/kubelet/pods/rfbenign /var/lib/kubelet/plugins/rfcsi
"""

_ENGINE = """
mkdir -p /srv/inner/rootfs/bin /srv/inner/rootfs/proc; cp /bin/busybox /srv/inner/rootfs/bin/
cd /srv/inner; runc spec
sed -i 's/"terminal": true/"terminal": false/; s#"sh"#"/bin/busybox", "echo", "inner works"#' config.json
test "$(runc run rf-inner)" = "inner works"
"""

WORK = (
    NodeWork("log-shipper", _SHIPPER, ("python3",), binds=(("/var/log", "/var/log"),)),
    NodeWork("node-exporter", _EXPORTER, ("python3",), shared=("pid",),
             binds=(("/proc", "/host/proc"), ("/sys", "/host/sys"), ("/", "/host/root")),
             reported=frozenset({"host-root"})),
    NodeWork("devices", _DEVICES, ("python3",), ("CAP_NET_ADMIN",),
             devices=(("/dev/fuse", 10, 229), ("/dev/net/tun", 10, 200)), modules=("tun", "fuse")),
    NodeWork("cni", _CNI, ("ip", "nft", "nsenter"), ("CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"),
             binds=(("/etc/cni/net.d", "/etc/cni/net.d"), ("/opt/cni/bin", "/opt/cni/bin")),
             shared=("network", "pid"), reported=frozenset({"netfilter-socket"}), excepted=True, guest=True),
    NodeWork("csi", _CSI, ("mkfs.ext4", "python3"), ("*",), modules=("loop", "ext4"), excepted=True,
             guest=True, binds=(("/var/lib/kubelet", "/var/lib/kubelet"), ("/dev", "/dev"))),
    NodeWork("engine-inside", _ENGINE, ("runc", "busybox"), ("*",), excepted=True, guest=True),
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the machine's root for all tests."""
    force.need_root()
    with host_root(tmp_path_factory.mktemp("root")) as path:
        yield path


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """An agent with the pack; the container named NAME is excepted from all but the invariants."""
    force.need_root()
    directory = tmp_path_factory.mktemp("policies")
    for file in PACK.glob("*.yaml"):
        text = file.read_text()
        if file.name != INVARIANTS:
            by = rf"\1containers: all\n\1except: {{names: [{NAME}]}}\n\1unidentified: wait"
            text, count = re.subn(r"^( +)containers: all$", by, text, flags=re.M)
            assert count >= 1, file
        (directory / file.name).write_text(text)
    with running_agent(tmp_path_factory.mktemp("agent"), policies=[directory], mode="enforce") as agent:
        yield agent


def _bundle(work: NodeWork, directory: Path, root: Path) -> Bundle:
    bundle = new_bundle(directory, root, work.script, () if "*" in work.capabilities else work.capabilities)
    config: dict[str, Any] = bundle.config
    if "*" in work.capabilities:
        whole = Bundle(directory, root).config["process"]["capabilities"]
        config["process"]["capabilities"] = whole
        config["linux"]["resources"]["devices"] = [{"allow": True, "access": "rwm"}]
    if work.excepted:
        config["annotations"]["nerdctl/name"] = NAME
        config["linux"] |= {"readonlyPaths": [], "maskedPaths": []}
        bundle.add_mount("/sys/fs/cgroup", "cgroup", "rw")
    linux = config["linux"]
    linux["namespaces"] = [one for one in linux["namespaces"] if one["type"] not in work.shared]
    for outside, inside in work.binds:
        Path(outside).mkdir(parents=True, exist_ok=True)
        bundle.bind(Path(outside), inside)
    for path, major, minor in work.devices:
        node = {"path": path, "type": "c", "major": major, "minor": minor, "fileMode": 0o666}
        linux.setdefault("devices", []).append(node)
        allowed = {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
        linux["resources"]["devices"].append(allowed)
    return bundle


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.name)
def test_work_for_the_node_is_not_affected(work: NodeWork, guard: Agent, root: Path, tmp_path: Path) -> None:
    """Status 0, nothing denied or killed, and no alert except those that the table names."""
    need(work.needs)
    if work.guest and not (force.in_guest() and is_pure_v2()):
        force.elsewhere("changes the host's network or mounts: in virtual machines only")
    if work.modules and force.in_guest():
        subprocess.run(["modprobe", "-a", *work.modules], check=False)
    not_affected(guard, _bundle(work, tmp_path, root), work.name, 60, work.reported)
