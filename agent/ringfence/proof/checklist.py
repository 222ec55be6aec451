# SPDX-License-Identifier: Apache-2.0
"""The rows of the escape checklist, and the runtime tests of rows that rules cannot cover.

ringfence.proof.cases has the rules and detectors that cover a row, and their attacks.
"""

from __future__ import annotations

from typing import NamedTuple

from ringfence.proof.cases import CASES, Case

__all__ = ["TECHNIQUES", "Technique", "cases_of"]


class Technique(NamedTuple):
    """One row.

    `guards`: tests of this project's own runtime that cover it. `why`: why a rule only alerts, on all
    kernels or on those where BPF-LSM does not decide.
    """

    row: int
    title: str
    guards: tuple[str, ...] = ()
    why: str = ""


def cases_of(row: int) -> list[Case]:
    """Returns the attacks that cover a row."""
    return [case for case in CASES if row in case.rows]


_LSM = "only BPF-LSM can distinguish it from legitimate use"
_HOST = "it happens on the host before the container runs: only a runtime can refuse it, and Ringfence's does"
_LOADS = "the actor is a program of the host: reported if BPF-LSM is available; the rule can be set to deny"
_CVES = "tests/runtime/test_cves.py::test_cve_"
_MOUNT_CVES = "tests/runtime/test_cves_mounts.py::test_cve_"

_T = Technique
TECHNIQUES = (
    _T(1, "Mount a disk of the host"),
    _T(2, "Read a raw block device"),
    _T(3, "Rewrite devices.allow"),
    _T(4, "release_agent"),
    _T(5, "release_agent by a user namespace (CVE-2022-0492)"),
    _T(6, "core_pattern"),
    _T(7, "Path of modprobe"),
    _T(8, "uevent_helper"),
    _T(9, "Register with binfmt_misc"),
    _T(10, "sysrq-trigger, sysctls of the node"),
    _T(11, "Load a kernel module"),
    _T(12, "kexec"),
    _T(13, "open_by_handle_at (shocker)"),
    _T(14, "Write to a mounted directory of the host"),
    _T(15, "Symlink into the kubelet's /var/log"),
    _T(16, "Enter namespaces of the host (nsenter)"),
    _T(17, "/proc/PID/root of the host"),
    _T(18, "ptrace, memory of others"),
    _T(19, "Take a descriptor (pidfd_getfd)"),
    _T(20, "Socket of containerd's shim (CVE-2020-15257)"),
    _T(21, "Socket of a container runtime"),
    _T(22, "Docker, kubelet, etcd by TCP"),
    _T(23, "Cloud metadata"),
    _T(24, "Service-account token", (),
       "a workload legitimately reads its own token: reading it with a common tool raises an alert; where "
       "BPF-LSM decides, a program that was not in the image is denied"),
    _T(25, "Packet sockets: ARP and DNS spoofing"),
    _T(26, "/dev/mem, I/O ports"),
    _T(27, "eBPF from a container"),
    _T(28, "perf, kallsyms, kcore, the kernel's log"),
    _T(29, "chroot breakout"),
    _T(30, "Unmask, remount writable"),
    _T(31, "Import a mount by a descriptor"),
    _T(32, "setuid file on a shared volume", why=f"package managers make setuid files, too; {_LSM}"),
    _T(33, "Symlink races on volumes (CVE-2021-30465)",
       (f"{_MOUNT_CVES}2021_30465_mount_through_a_symlink",
        f"{_MOUNT_CVES}2017_1002101_symlink_in_the_middle"),
       f"deployments legitimately exchange directories; {_LSM}"),
    _T(34, "Overwrite the runtime (CVE-2019-5736)", (f"{_CVES}2019_5736_the_runtimes_own_program",)),
    _T(35, "Leaked descriptor as working directory (CVE-2024-21626)",
       (f"{_CVES}2024_21626_working_directory_through_a_descriptor",)),
    _T(36, "Masked path swapped for a link (CVE-2025-31133)", (f"{_CVES}2025_31133_dev_null_of_the_image",)),
    _T(37, "/dev/console through a link (CVE-2025-52565)", (f"{_CVES}2025_52565_console_is_a_symlink",)),
    _T(38, "The runtime's procfs writes led elsewhere (CVE-2025-52881)",
       (f"{_CVES}2025_52881_procfs_writes_go_to_the_runtimes_procfs",)),
    _T(39, "/dev of the image is a link (CVE-2026-41579, CVE-2026-47766)",
       (f"{_CVES}2026_41579_dev_is_a_symlink", f"{_CVES}2026_47766_device_path_is_a_symlink"), _HOST),
    _T(40, "Smuggled sysctls (CVE-2022-0811)"),
    _T(41, "Image metadata that acts on the host (CVE-2022-23648 and later)",
       (f"{_CVES}2022_23648_text_of_the_image_stays_text",), _HOST),
    _T(42, "A helper of the host loads the container's code (CVE-2019-14271)",
       (f"{_CVES}2019_14271_nothing_of_the_image_is_loaded",), _LOADS),
    _T(43, "Loader variables for a hook (CVE-2025-23266)",
       (f"{_CVES}2025_23266_hooks_get_no_loader_variables",), _LOADS),
    _T(44, "Link swapped during the launch (CVE-2024-0132)",
       (f"{_MOUNT_CVES}2024_0132_a_link_swapped_during_the_launch",), _HOST),
    _T(45, "Build that reaches out (CVE-2024-23651 to 23653)", (),
       "the fault is in the build daemon; build steps are containers: what the fault exposes is reported"),
    _T(46, "lxcfs: devices.allow through FUSE"),
    _T(47, "Dirty COW (CVE-2016-5195)", (), "debuggers open it, too, and work without it if it is denied"),
    _T(48, "Dirty Pipe (CVE-2022-0847)"),
    _T(49, "Copy Fail (CVE-2026-31431)"),
    _T(50, "Dirty Frag, Fragnesia, DirtyDecrypt"),
    _T(51, "fsconfig overflow (CVE-2022-0185)"),
    _T(52, "Netfilter (CVE-2022-2588, CVE-2024-1086 and others)"),
    _T(53, "Packet socket (CVE-2020-14386 and others)"),
    _T(54, "BPF verifier (CVE-2022-23222 and others)"),
    _T(55, "OverlayFS (CVE-2023-0386 and others)"),
    _T(56, "IPv6 fragments (CVE-2026-53362)"),
    _T(57, "io_uring (CVE-2023-2598 and others)", (),
       "language runtimes try it and work without it if denied; killing them would end legitimate work"),
    _T(58, "vsock, video (CVE-2025-21756, CVE-2024-53104)"),
    _T(59, "Credentials or namespaces swapped by a kernel exploit"),
    _T(60, "Program in memory, program not of the image"),
    _T(61, "Typing into a shared terminal (CVE-2017-5226)"),
    _T(62, "Fork, memory and descriptor bombs", (),
       "the cgroup's limits stop it; a detector reports that a limit is hit"),
    _T(63, "Recon sweep", (), "each call is legitimate or has its own rule; a detector reports the sum"),
    _T(64, "File capabilities on a shared disk", why=f"package managers set them, too; {_LSM}"),
    _T(65, "The node's swap space, clock, accounting and quotas"),
    _T(66, "fanotify: descriptors of other processes' files, opens of the node that wait"),
    _T(67, "ioctls that act on a whole filesystem, or open by handle", (),
       "trimming discards unused blocks only; docker and systemd search trees of btrfs, and killing them "
       "would end legitimate work"),
    _T(68, "Words for the host's request-key"),
    _T(69, "Signals to processes of the host"),
    _T(70, "Forged uevents", why=_LSM),
)  # fmt: skip
