# SPDX-License-Identifier: Apache-2.0
"""Containers on the machine's own root: an overlay above `/`, discarded afterwards."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.container import Bundle

__all__ = ["DOCKER_CAPABILITIES", "host_root", "new_bundle", "overlaid"]

DOCKER_CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
    "CAP_AUDIT_WRITE",
)  # fmt: skip
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@contextlib.contextmanager
def overlaid(lower: Path, directory: Path, size: str, *more: str) -> Iterator[Path]:
    """Mounts an overlay on `lower`. The upper layer is a tmpfs: `directory` may be on an overlay itself."""
    layers, root = directory / "layers", directory / "root"
    for path in (layers, root):
        path.mkdir(parents=True)
    try:
        _run("mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "none", str(layers))
        for name in ("upper", "work"):
            (layers / name).mkdir()
        options = (f"lowerdir={lower}", f"upperdir={layers}/upper", f"workdir={layers}/work", *more)
        _run("mount", "-t", "overlay", "-o", ",".join(options), "none", str(root))
        yield root
    finally:
        for path in (root, layers):
            while path.is_mount():
                _run("umount", "--lazy", str(path))


@contextlib.contextmanager
def host_root(directory: Path) -> Iterator[Path]:
    """Mounts a copy of the machine's root."""
    with overlaid(Path("/"), directory, "2g") as root:
        _tidy(root)
        yield root


def _tidy(root: Path) -> None:
    """Removes what belongs to the machine and not to an image, where a container has its own mounts."""
    for name in ("srv", "tmp", "run", "proc", "sys", "dev", "var/tmp"):
        (root / name).mkdir(exist_ok=True)
    (root / "etc/hostname").write_text("rftest\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost rftest\n")
    for path in (root / "etc/cron.d").glob("*"):
        path.unlink()
    (root / "etc/crontab").unlink(missing_ok=True)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)


def new_bundle(directory: Path, root: Path, script: str, capabilities: tuple[str, ...] = ()) -> Bundle:
    """Creates a bundle like an engine's ordinary container: Docker's capabilities, masks and mounts."""
    bundle = Bundle(directory, root)
    config = bundle.config
    process = config["process"]
    process["args"] = ["/bin/sh", "-ec", script]
    process["env"] = [f"PATH={_PATH}", "HOME=/root", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"]
    held = [*DOCKER_CAPABILITIES, *capabilities]
    process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), held)
    config["hostname"] = "rftest"
    config["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    config["linux"]["maskedPaths"] = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"]
    config["linux"]["readonlyPaths"] = [
        "/proc/bus",
        "/proc/fs",
        "/proc/irq",
        "/proc/sys",
        "/proc/sysrq-trigger",
    ]
    config["mounts"] = [m for m in config["mounts"] if m["destination"] != "/tmp"]
    for mount in config["mounts"]:
        if mount["destination"] == "/sys":
            mount["options"].append("ro")
        if mount["destination"] == "/dev/shm":
            mount["options"] = ["nosuid", "noexec", "nodev", "mode=1777", "size=64m"]
    for where, mode in (("/tmp", "1777"), ("/run", "755"), ("/srv", "755")):
        bundle.add_mount(where, "tmpfs", f"mode={mode}", "size=1g")
    if os.path.isdir("/var/lib/apt/lists"):
        bundle.add_mount("/var/lib/apt/lists", "tmpfs", "mode=755", "size=64m")
    return bundle
