# SPDX-License-Identifier: Apache-2.0
"""Which QEMU and which virtiofsd to use, and their command lines.

QEMU before 9 corrupts guests whose kernel text is patched while another virtual CPU runs it: attaching a BPF
program crashed or hung half of them under 7.2 (none of 205 boots under 10.0). Debian 12 has 7.2, so there 10
of its backports is unpacked into the cache; where nothing newer can be had, one virtual CPU avoids the race.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from tools.vm.catalogue import Prepared, cache_directory

__all__ = [
    "APPEND",
    "WITHOUT_BPF",
    "Qemu",
    "find_qemu",
    "machine_command",
    "needs_fetch",
    "virtiofsd_command",
]

GOOD_MAJOR = 9
PROGRAMS = {"amd64": "qemu-system-x86_64", "arm64": "qemu-system-aarch64"}
VIRTIOFSD = (Path("/usr/libexec/virtiofsd"), Path("/usr/lib/qemu/virtiofsd"))
#: for a kernel without BPF-LSM; it overrides the list in COMMAND_LINE
WITHOUT_BPF = "lsm=landlock,lockdown,yama,integrity,apparmor"
COMMAND_LINE = (
    "panic=-1 oops=panic nokaslr mitigations=off audit=0 nowatchdog "
    f"random.trust_cpu=on cryptomgr.notests cgroup_no_v1=all {WITHOUT_BPF},bpf"
)
CONSOLE = {"amd64": "console=ttyS0 no_timer_check tsc=reliable", "arm64": "console=ttyAMA0"}
#: `1`: one CPU whose clock counts instructions, a nanosecond each: for costs (tools/bench/tiers_bench.py)
COUNTED = "RINGFENCE_VM_COUNTED"
#: more words for the kernel, which override: WITHOUT_BPF, `preempt=full`
APPEND = "RINGFENCE_VM_APPEND"
BOARD = {
    "amd64": ("-M", "q35,memory-backend=memory", "-cpu", "max,la57=off"),
    # the architected algorithm of pointer authentication takes most of an emulated CPU's time
    "arm64": ("-M", "virt,memory-backend=memory", "-cpu", "max,pauth-impdef=on"),
}
REPORT = {"amd64": "isa-serial,chardev=report,index=1", "arm64": "pci-serial,chardev=report"}


class Qemu(NamedTuple):
    """A QEMU program, the options that it needs to find its files, and how many CPUs its guests may have."""

    program: str
    options: tuple[str, ...]
    cpus: int


@functools.cache
def _major(program: str) -> int:
    shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"version (\d+)", shown)
    return int(found[1]) if found else 0


def _cached() -> Path:
    return cache_directory() / "qemu/usr"


def find_qemu(machine: str = "amd64") -> Qemu:
    """The best QEMU of this machine; raises RuntimeError where there is none."""
    program = PROGRAMS[machine]
    system = shutil.which(program)
    if system and machine != "amd64":  # the race is of x86's breakpoints
        return Qemu(system, (), 2)
    if system and _major(system) >= GOOD_MAJOR:
        return Qemu(system, (), 2)
    own = _cached() / "bin" / program
    if own.exists():
        firmware = ("-L", "/usr/share/seabios", "-L", str(_cached() / "share/qemu"))
        return Qemu(str(own), firmware, 2)
    if system:
        return Qemu(system, (), 1)
    group = "make deps-vm" if machine == "amd64" else f"tools/deps {machine}"
    raise RuntimeError(f"no {program} here: `{group}` installs it")


def needs_fetch() -> bool:
    """True where QEMU 10 of bookworm-backports would run and is wanted."""
    program = PROGRAMS["amd64"]
    system = shutil.which(program)
    if (system and _major(system) >= GOOD_MAJOR) or (_cached() / "bin" / program).exists():
        return False
    return "VERSION_CODENAME=bookworm" in Path("/etc/os-release").read_text()


def virtiofsd_command(socket: Path, directory: Path, *, cache: str) -> list[str]:
    """The argv of a file server for one directory; raises RuntimeError where none is installed."""
    program = next((path for path in VIRTIOFSD if path.exists()), None)
    if program is None:
        raise RuntimeError("no virtiofsd here: `make deps-vm` installs it")
    if program.parts[-2] == "libexec":  # the one in Rust, from Debian 13 on
        shared = [f"--shared-dir={directory}", f"--cache={cache}", "--sandbox=chroot"]
        return [*_as_root(), str(program), f"--socket-path={socket}", *shared]
    options = [f"source={directory}", f"cache={cache}", "sandbox=chroot"]
    words = [word for one in options for word in ("-o", one)]
    return [*_as_root(), str(program), f"--socket-path={socket}", *words, "-f"]


def _as_root() -> list[str]:
    """Lets a user's server chroot, make its lock in /run, and open files of others: it has own namespaces."""
    if os.geteuid() == 0:
        return []
    library = cache_directory() / "noatime.so"
    source = Path(__file__).with_name("noatime.c")
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    script = 'mount -t tmpfs none /run && LD_PRELOAD=$0 exec "$@"'
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", script, str(library)]


def machine_command(
    kernel: Prepared,
    initrd: Path,
    report: Path,
    sockets: dict[str, Path],
    *,
    memory: int,
    verbose: bool,
    append: str = "",
) -> list[str]:
    """The argv of QEMU. `sockets`: virtiofs tag -> socket of its server; `memory` in MiB.

    `append` and the environment's RINGFENCE_VM_APPEND are added to the kernel's command line.
    """
    qemu = find_qemu(kernel.machine)
    more = ("" if verbose else "quiet loglevel=3", append, os.environ.get(APPEND, ""))
    line = " ".join(word for word in (CONSOLE[kernel.machine], COMMAND_LINE, *more) if word)
    counted = os.environ.get(COUNTED, "") == "1"
    threads, cpus = ("single", 1) if counted else ("multi", qemu.cpus)
    argv = [qemu.program, *qemu.options, "-accel", f"tcg,thread={threads},tb-size=512"]
    argv += ["-icount", "shift=0"] if counted else []
    argv += [*BOARD[kernel.machine], "-m", str(memory), "-smp", str(cpus)]
    # virtiofs needs memory that the file server can map.
    argv += ["-object", f"memory-backend-memfd,id=memory,size={memory}M,share=on"]
    argv += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    argv += ["-kernel", str(kernel.directory / "vmlinux"), "-initrd", str(initrd), "-append", line]
    argv += ["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]
    argv += ["-chardev", f"file,id=report,path={report}", "-device", REPORT[kernel.machine]]
    for tag, socket in sockets.items():
        argv += ["-chardev", f"socket,id={tag},path={socket}"]
        argv += ["-device", f"vhost-user-fs-pci,chardev={tag},tag={tag}"]
    return argv
