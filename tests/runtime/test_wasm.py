# SPDX-License-Identifier: Apache-2.0
"""WebAssembly modules as containers: detection, WASI, the cache
of native code, and what modules try through host functions.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import ringfence_runtime
from ringfence_runtime.errors import SpecError
from ringfence_runtime.launch import wasm
from ringfence_runtime.launch.plan import Options
from ringfence_runtime.launcher import modules
from ringfence_runtime.launcher.modules import Modules
from ringfence_runtime.spec import parse_config
from tests.runtime.conftest import CONFIG, ROOT, Box, Runtime
from tests.runtime.test_agent import add_call, agent, with_agent  # noqa: F401 (fixtures)
from tests.runtime.test_engines import (  # noqa: F401 (fixtures)
    Containerd,
    Podman,
    containerd,
    podman,
    root_tree,
)
from tests.runtime.test_launcher import Warm
from tests.support import force
from tests.support.agent import Agent
from tests.support.waiting import patience, wait_for

SOURCE = Path(__file__).parent / "wasm" / "attempts.c"
OWN = {"ringfence.io/wasm": "true"}


@pytest.mark.parametrize(
    ("annotations", "word"),
    [
        ({}, ""),
        (OWN, "always"),
        ({"ringfence.io/wasm": "false", "run.oci.handler": "wasm"}, ""),
        ({"run.oci.handler": "wasm"}, "always"),
        ({"run.oci.handler": "wasm-smart"}, "smart"),
        ({"module.wasm.image/variant": "compat"}, "always"),
        ({"module.wasm.image/variant": "compat-smart"}, "smart"),
        ({"run.oci.handler": "krun"}, ""),
    ],
)
def test_annotations_ask_for_webassembly(annotations: dict[str, str], word: str) -> None:
    """Those of crun with its four words, and the runtime's own, which is decisive."""
    assert wasm.wanted(annotations) == word


def test_an_unknown_word_is_an_error() -> None:
    """A misspelt annotation does not start the module as a native program."""
    with pytest.raises(SpecError, match="'yes' is not 'true' or 'false'"):
        wasm.wanted({"ringfence.io/wasm": "yes"})


def library() -> str:
    """Returns the path of the engine's library."""
    found = importlib.util.find_spec("wasmtime")
    for place in (found.submodule_search_locations or ()) if found else ():
        path = f"{place}/linux-{os.uname().machine}/_libwasmtime.so"
        if os.path.exists(path):
            return path
    return force.missing("wasm", "needs the Python package wasmtime")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of native code."""
    return tmp_path_factory.mktemp("wasm") / "cache"


@pytest.fixture(scope="session")
def executable(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """The installed runtime with the engine."""
    force.need_root()
    force.need_program("gcc")
    path = tmp_path_factory.mktemp("bin") / "ringfence-runtime"
    environment = {"PYTHONPATH": str(ROOT / "runtime"), "PATH": os.environ["PATH"]}
    command = ["/usr/bin/python3", "-m", "ringfence_runtime", "install", str(path)]
    subprocess.run([*command, "--wasm", library(), "--wasm-cache", str(cache)], check=True, env=environment)
    return path


@pytest.fixture(scope="session")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module of wasm/attempts.c."""
    clang = force.need_program("clang")
    force.need_program("wasm-ld")
    if not Path("/usr/include/wasm32-wasi/stdio.h").exists():
        force.missing("wasm", "needs the package wasi-libc")
    path = tmp_path_factory.mktemp("module") / "attempts.wasm"
    subprocess.run(
        [clang, "--target=wasm32-wasi", "--sysroot=/usr", "-O1", "-o", str(path), str(SOURCE)], check=True
    )
    return path


@pytest.fixture
def wasi(box: Box, module: Path) -> Box:
    """A container that executes the module."""
    (box.rootfs / "attempts.wasm").write_bytes(module.read_bytes())
    box.config["annotations"] = dict(OWN)
    return box


def attempt(box: Box, *words: str) -> str:
    """Returns what the module prints of this attempt."""
    return box.args("/attempts.wasm", *words).output().strip()


def from_text(box: Box, text: str) -> Box:
    """Lets the container execute a module in the text format."""
    (box.directory / "text.wat").write_text(text)
    wat2wasm = force.need_program("wat2wasm")
    path = str(box.rootfs / "text.wasm")
    subprocess.run([wat2wasm, str(box.directory / "text.wat"), "-o", path], check=True)
    return box.args("/text.wasm")


pytest_root = pytest.mark.root


@pytest_root
def test_arguments_environment_and_exit_code_are_the_modules(wasi: Box) -> None:
    """Also variables that a dynamic loader would interpret. It reads no file of the image either."""
    (wasi.rootfs / "etc").mkdir(exist_ok=True)
    (wasi.rootfs / "etc" / "ld.so.preload").write_text("/none.so\n")
    wasi.config["process"]["env"] = ["A=b=c", "LD_PRELOAD=/none.so"]
    got = wasi.args("/attempts.wasm", "show", "two words", "").run()
    assert got.stdout.splitlines() == [
        "/attempts.wasm", "show", "two words", "", "A=b=c", "LD_PRELOAD=/none.so", "PWD=/",
    ]  # fmt: skip
    assert (got.returncode, got.stderr) == (7, "")


@pytest_root
def test_the_working_directory_is_in_the_environment(wasi: Box) -> None:
    """WASI has none: wasi-libc begins at /, Go's programs at PWD."""
    (wasi.rootfs / "data").mkdir()
    (wasi.rootfs / "data" / "file").write_text("content")
    wasi.config["process"]["cwd"] = "/data"
    assert attempt(wasi, "read", "/data/file") == "read: 7 bytes: content"
    assert attempt(wasi, "read", "data/file") == "read: 7 bytes: content"
    assert "PWD=/data" in wasi.args("/attempts.wasm").run().stdout.splitlines()


@pytest_root
def test_a_trap_ends_with_134_and_one_line(wasi: Box) -> None:
    """As a native program that is ended by SIGABRT."""
    got = wasi.args("/attempts.wasm", "trap").run()
    assert got.returncode == 134
    assert got.stderr.startswith("wasm: the module is ended: wasm trap: ")
    assert got.stderr.count("\n") == 1


@pytest_root
def test_sigterm_ends_a_module_that_is_process_1(wasi: Box) -> None:
    """A process 1 is ended by no signal that it does not handle. The module would sleep 60 s and return 7."""
    wasi.args("/attempts.wasm", "sleep").write()
    words = [str(wasi.runtime.executable), "--root", str(wasi.runtime.root), "run", wasi.name]
    with subprocess.Popen(words, cwd=wasi.directory, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "waiting\n"
        got = wasi.runtime("kill", wasi.name, "TERM")
        assert got.returncode == 0, got.stderr
        assert running.wait(timeout=patience(30)) == 128 + signal.SIGTERM


@pytest_root
def test_smart_words_execute_other_programs_natively(wasi: Box) -> None:
    """The magic number decides."""
    wasi.config["annotations"] = {"run.oci.handler": "wasm-smart"}
    assert wasi.args("/bin/echo", "native").output() == "native\n"
    assert wasi.args("/attempts.wasm", "read", "/none").output().startswith("read: No such file")


@pytest_root
def test_other_programs_are_refused_where_a_module_must_be(wasi: Box) -> None:
    """A component, too."""
    assert "'/bin/echo' is not a WebAssembly module" in wasi.args("/bin/echo").refused()
    (wasi.rootfs / "component").write_bytes(b"\0asm\r\0\1\0")
    assert "component" in wasi.args("/component").refused()
    assert "is not a file of the container" in wasi.args("/none").refused()


@pytest_root
def test_a_module_that_is_invalid_starts_nothing(wasi: Box, cache: Path) -> None:
    """The compiler's reason is the message, and nothing is left in the cache."""
    (wasi.rootfs / "broken").write_bytes(b"\0asm\1\0\0\0" + bytes(range(200)))
    before = set(cache.iterdir()) if cache.exists() else set()
    assert "cannot compile the module" in wasi.args("/broken").refused()
    assert {path.name for path in set(cache.iterdir()) - before} <= {"lock"}


@pytest_root
def test_native_code_is_compiled_once_and_again_if_it_is_damaged(wasi: Box, cache: Path) -> None:
    """The second start uses the same file; a flipped bit makes another."""
    attempt(wasi, "read", "/none")
    code = max(
        (path for path in cache.iterdir() if len(path.name) == 64), key=lambda path: path.stat().st_mtime
    )
    first, content = code.stat().st_ino, code.read_bytes()
    attempt(wasi, "read", "/none")
    assert code.stat().st_ino == first
    damaged = bytearray(content)
    damaged[len(damaged) // 2] ^= 1
    code.write_bytes(damaged)
    attempt(wasi, "read", "/none")
    assert code.read_bytes() == content


@pytest_root
def test_a_directory_that_others_may_write_holds_no_trusted_code(wasi: Box, cache: Path) -> None:
    """Its code would be executed without any check of what it does."""
    attempt(wasi, "read", "/none")
    cache.chmod(0o777)
    try:
        assert "can be written by others than root" in wasi.args("/attempts.wasm").refused()
    finally:
        cache.chmod(0o700)


@pytest_root
def test_masked_paths_and_kernel_files_are_out_of_reach(wasi: Box) -> None:
    """/proc/self/mem would give the module the host program's memory."""
    (wasi.rootfs / "secret").mkdir()
    (wasi.rootfs / "secret" / "key").write_text("key")
    assert attempt(wasi, "read", "/secret/key") == "read: 3 bytes: key"
    wasi.config["linux"]["maskedPaths"].append("/secret")
    assert attempt(wasi, "list", "/secret") == "end"
    assert attempt(wasi, "read", "/secret/key") == "read: No such file or directory"
    assert attempt(wasi, "list", "/proc") == "end"
    assert attempt(wasi, "list", "/sys") == "end"


@pytest_root
def test_no_path_or_link_leads_to_the_host(wasi: Box, tmp_path: Path) -> None:
    """Neither `..` nor a link that the module makes, nor one that is in a volume."""
    (tmp_path / "host").write_text("host")
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume" / "out").symlink_to(tmp_path / "host")
    mount = {"destination": "/data", "type": "bind", "source": str(tmp_path / "volume"), "options": ["rbind"]}
    wasi.config["mounts"].append(mount)
    outside = f"{'../' * 30}{tmp_path}/host"
    for words in (("read", outside), ("read", "/data/out"), ("link", outside), ("link", f"{tmp_path}/host")):
        got = attempt(wasi, *words).splitlines()[-1]
        assert got.startswith("read: "), got
        assert "bytes" not in got


@pytest_root
def test_a_read_only_mount_is_read_only_for_the_module(wasi: Box, tmp_path: Path) -> None:
    """And a read-only root is, while a writable mount in it is not."""
    (tmp_path / "volume").mkdir()
    mount = {
        "destination": "/data",
        "type": "bind",
        "source": str(tmp_path / "volume"),
        "options": ["bind", "ro"],
    }
    wasi.config["mounts"].append(mount)
    assert attempt(wasi, "write", "/new") == "write: done"
    assert attempt(wasi, "write", "/data/new") != "write: done"
    wasi.config["root"]["readonly"] = True
    assert attempt(wasi, "write", "/other") != "write: done"
    assert attempt(wasi, "write", "/tmp/new") == "write: done"


@pytest_root
def test_memory_files_and_time_are_bounded(wasi: Box) -> None:
    """4 GiB of memory, 10,000 files and an endless loop."""
    wasi.config["linux"]["resources"] = {"memory": {"limit": 64 << 20}}
    wasi.config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "hard": 256, "soft": 256}]
    got = wasi.args("/attempts.wasm", "grow").run()
    # at the store's limit, or by the cgroup's, which also counts the engine
    assert got.returncode == 137 or int(got.stdout.split()[1]) < 64
    assert 0 < int(attempt(wasi, "files").split()[1]) < 256
    wasi.config["annotations"]["ringfence.io/wasm-deadline-ms"] = "300"
    got = wasi.args("/attempts.wasm", "loop").run(timeout=patience(30))
    assert (got.returncode, got.stderr) == (134, "wasm: the module is ended: wasm trap: interrupt\n")
    got = wasi.args("/attempts.wasm", "sleep").run(timeout=patience(30))
    assert got.returncode == 134
    assert "its deadline has passed" in got.stderr


@pytest_root
def test_the_store_limits_memory(wasi: Box) -> None:
    """Growth fails at the limit, before memory is touched."""
    wasi.config["linux"]["resources"] = {"memory": {"limit": 64 << 20}}
    text = '(module (memory (export "memory") 1) (func (export "_start") {} (if (then unreachable))))'
    grown = "(i32.ne (memory.grow (i32.const {})) (i32.const {}))"
    assert from_text(wasi, text.format(grown.format(500, 1))).run().returncode == 0
    assert from_text(wasi, text.format(grown.format(65000, -1))).run().returncode == 0


@pytest_root
def test_there_is_no_socket(wasi: Box) -> None:
    """Preview 1 can only use sockets that the host gives: a preopened directory is none."""
    accept = """(module
      (import "wasi_snapshot_preview1" "sock_accept" (func $a (param i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "_start") (if (i32.eqz (call $a (i32.const 3) (i32.const 0) (i32.const 0)))
        (then unreachable))))"""
    assert from_text(wasi, accept).run().returncode == 0
    connect = """(module (import "wasi_snapshot_preview1" "sock_connect" (func (param i32)))
      (memory (export "memory") 1) (func (export "_start")))"""
    got = from_text(wasi, connect).run()
    assert got.returncode == 134
    assert "sock_connect" in got.stderr
    assert got.stderr.count("\n") == 1


@pytest_root
def test_only_the_loaded_code_is_executable(wasi: Box) -> None:
    """The process has a filter, no new privileges, and no executable memory without a file."""
    wasi.args("/attempts.wasm", "sleep").start()
    pid = wasi.state()["pid"]
    status = Path(f"/proc/{pid}/status")
    wait_for(lambda: "Seccomp:\t2" in status.read_text(), "the filter is installed")
    assert "NoNewPrivs:\t1" in status.read_text()
    lines = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    executable = {(words + [""])[5] for words in lines if "x" in words[1]}
    assert executable
    assert all(
        name.startswith("/run/.ringfence-wasm/") or name in ("[vdso]", "[vsyscall]") for name in executable
    )
    assert wasi.exec("/bin/echo", "native").stdout == "native\n"


@pytest_root
def test_an_agent_enrolls_a_module_as_any_container(with_agent: Agent, wasi: Box) -> None:  # noqa: F811
    """Its policy lets the module run, and stops what a native program in the same container does."""
    add_call(wasi.rootfs)
    policy = {"ringfence.io/policy": "by-request", "ringfence.io/require-agent": "true"}
    wasi.config["annotations"] = {**OWN, **policy}
    assert attempt(wasi, "read", "/none") == "read: No such file or directory"
    wasi.args("/attempts.wasm", "sleep").start()
    assert "lived" not in wasi.exec("/bin/call").stdout
    wasi.config["annotations"] = dict(OWN)
    wasi.do("delete", "--force")
    wasi.start()
    assert wasi.exec("/bin/call").stdout == "lived\n"


@pytest_root
def test_without_an_engine_the_message_names_the_package(box: Box, module: Path) -> None:
    """The runtime as pip installs it has none."""
    (box.rootfs / "attempts.wasm").write_bytes(module.read_bytes())
    box.config["annotations"] = dict(OWN)
    box.args("/attempts.wasm").write()
    command = [
        "/usr/bin/python3",
        "-m",
        "ringfence_runtime",
        "--root",
        str(box.runtime.root),
        "run",
        box.name,
    ]
    environment = {"PYTHONPATH": str(ROOT / "runtime"), "PATH": os.environ["PATH"]}
    got = subprocess.run(
        command, cwd=box.directory, env=environment, capture_output=True, text=True, check=False
    )
    assert got.returncode == 1
    assert "without an engine for WebAssembly" in got.stderr
    assert "ringfence[wasm]" in got.stderr


@pytest.mark.slow
@pytest_root
def test_podman_runs_a_module(podman: Podman, module: Path) -> None:  # noqa: F811 (a fixture)
    """By crun's annotation, with a module from a volume."""
    words = ["--rm", "--annotation", "run.oci.handler=wasm", "-v", f"{module}:/app.wasm:ro"]
    got = podman.run(*words, "rftest", "/app.wasm", "a", ok=False)
    assert got.stdout.splitlines()[:2] == ["/app.wasm", "a"], got.stderr
    assert got.returncode == 7


@pytest.mark.slow
@pytest_root
def test_containerd_runs_a_module(containerd: Containerd, root_tree: Path, module: Path) -> None:  # noqa: F811
    """By crun's annotation, with a module from a volume."""
    name = f"rftest-{secrets.token_hex(6)}"
    options = ["--rm", "--runc-binary", str(containerd.executable), "--cgroup", f"/{name}"]
    options += ["--annotation", "run.oci.handler=wasm"]
    options += ["--mount", f"type=bind,src={module},dst=/app.wasm,options=rbind:ro"]
    got = containerd.ctr("run", *options, "--rootfs", str(root_tree), name, "/app.wasm", "a", ok=False)
    assert got.stdout.splitlines()[:2] == ["/app.wasm", "a"], got.stderr
    assert got.returncode == 7


class Codes:
    """Files in place of the cache of native code. Counts how often a module is read and looked up."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.reads = 0
        monkeypatch.setattr(modules, "cached", self.cached)
        monkeypatch.setattr(modules, "check_directory", lambda: str(directory))
        monkeypatch.setattr(ringfence_runtime, "ENGINE", ("/engine", "digest", str(directory)))
        # the files of a test are all younger than this
        monkeypatch.setattr(modules, "_SECONDS_OF_DOUBT", -1.0)

    def cached(self, module: bytes, *, interruptible: bool) -> str:
        """As wasmcode.cached, but there is code for every module."""
        self.reads += 1
        path = self.directory / f"{module[8:].decode()}{'-stops' if interruptible else ''}"
        if not path.exists():
            path.write_text("code")
        return str(path)


def test_a_launcher_reads_a_module_again_after_each_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the module, of the code and of the settings. Otherwise neither file is read a second time."""
    (tmp_path / "rootfs").mkdir()
    module = tmp_path / "rootfs" / "module"
    module.write_bytes(b"\0asm\1\0\0\0first")
    config = parse_config(json.dumps({**CONFIG, "annotations": OWN} | {"process": {
        **CONFIG["process"], "args": ["/module"]}}).encode())  # fmt: skip
    codes, known = Codes(tmp_path, monkeypatch), Modules()

    def code() -> str:
        made = known.prepare(config, str(tmp_path), Options())
        assert made is not None
        return made.mounts[-1].source

    first = code()
    assert (code(), codes.reads) == (first, 1)
    assert first == f"{tmp_path}/first"
    (tmp_path / "first").write_text("damaged")
    assert (code(), codes.reads) == (first, 2)
    module.write_bytes(b"\0asm\1\0\0\0other")
    assert (code(), codes.reads) == (f"{tmp_path}/other", 3)
    os.utime(tmp_path / "other", (0, 0))
    assert (code(), codes.reads) == (f"{tmp_path}/other", 4), "its use must be written down"
    config.annotations[wasm.DEADLINE] = "5"
    assert (code(), codes.reads) == (f"{tmp_path}/other-stops", 5)


def test_a_launcher_leaves_large_modules_to_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would serve nobody else while it reads."""
    (tmp_path / "rootfs").mkdir()
    (tmp_path / "rootfs" / "module").write_bytes(b"\0asm\1\0\0\0large")
    os.truncate(tmp_path / "rootfs" / "module", (16 << 20) + 1)
    process = {**CONFIG["process"], "args": ["/module"]}
    config = parse_config(json.dumps({**CONFIG, "annotations": OWN, "process": process}).encode())
    codes = Codes(tmp_path, monkeypatch)
    assert Modules().prepare(config, str(tmp_path), Options()) is None
    assert codes.reads == 0


@pytest.fixture
def warm(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[Warm]:
    """A launcher with the engine."""
    force.need_root()
    force.need_program("gcc")
    made = Warm(tmp_path_factory.mktemp("warm"), "--wasm", library(), "--wasm-cache", str(cache))
    yield made
    made.stop()
    made.log.close()


@pytest_root
def test_the_launcher_launches_a_compiled_module_itself(wasi: Box, warm: Warm, cache: Path) -> None:
    """A worker compiles it; from then on no process of the runtime stays beside the module."""
    wasi.runtime = Runtime(warm.executable, wasi.runtime.root)
    for path in cache.glob("*") if cache.exists() else ():
        path.unlink()
    assert attempt(wasi, "read", "/none").startswith("read: ")
    assert [path.suffix for path in sorted(cache.iterdir())] == ["", ".sum", ""]
    wasi.args("/attempts.wasm", "sleep").write()
    words = [str(warm.executable), "--root", str(wasi.runtime.root), "run", wasi.name]
    with subprocess.Popen(words, cwd=wasi.directory, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "waiting\n"
        assert set(warm.children()) - set(warm.own) == {wasi.state()["pid"]}
        running.terminate()
        assert running.wait(timeout=patience(30)) == 128 + signal.SIGTERM
    code = next(path for path in cache.iterdir() if len(path.name) == 64)
    code.write_bytes(b"damaged")
    assert attempt(wasi, "read", "/none").startswith("read: ")
    assert code.stat().st_size > len(b"damaged")
