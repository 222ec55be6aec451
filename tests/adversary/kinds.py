# SPDX-License-Identifier: Apache-2.0
"""The three kinds of container from which the adversary attacks, and their root filesystem.

`docker`: Docker's default capabilities, devices, masks and namespaces. `caps`: the same with every
capability (`--cap-add ALL`). `priv`: `--privileged`, the host's pid and network namespaces, and
directories of the host. None has a seccomp profile: what stops an attack is Ringfence.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from ringfence.proof.target_container import privileged_config
from tests.benign.machine import DOCKER_CAPABILITIES, overlaid

__all__ = ["ALL", "CAPS", "DOCKER", "PRIV", "Kind", "container_config", "new_root"]

Kind = Literal["docker", "caps", "priv"]
DOCKER: Kind = "docker"
CAPS: Kind = "caps"
PRIV: Kind = "priv"
ALL: tuple[Kind, ...] = (DOCKER, CAPS, PRIV)

_MASKED = [f"/proc/{name}" for name in ("acpi", "kcore", "keys", "latency_stats", "timer_list", "scsi")]
_READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
#: what Docker's device rules allow besides mknod of any
_DEVICES = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (10, 200))


def container_config(root: Path, kind: Kind, binds: dict[str, Path], network: str = "") -> dict[str, Any]:
    """Returns config.json. `binds`: path inside -> directory of the host; writable but below /usr.

    `network`: a network namespace for the kinds that have their own (empty: a new one).
    """
    config = privileged_config(root, None, kind="host-pid" if kind == PRIV else "plain")
    config["process"]["args"] = ["/bin/adversary", "serve"]
    config["mounts"] += [_bind(inside, outside) for inside, outside in binds.items()]
    linux = config["linux"]
    if kind == PRIV:
        linux["namespaces"] = [one for one in linux["namespaces"] if one["type"] != "network"]
        return config
    if network:
        own = next(one for one in linux["namespaces"] if one["type"] == "network")
        own["path"] = network
    linux["maskedPaths"], linux["readonlyPaths"] = [*_MASKED, "/sys/firmware"], list(_READONLY)
    linux["resources"] = {"devices": _device_rules()}
    for mount in config["mounts"]:
        if mount["destination"] in ("/sys", "/sys/fs/cgroup"):
            mount["options"] = ["nosuid", "noexec", "nodev", "ro"]
    if kind == DOCKER:
        sets = ("bounding", "effective", "permitted")
        config["process"]["capabilities"] = {name: list(DOCKER_CAPABILITIES) for name in sets}
    return config


def _bind(inside: str, outside: Path) -> dict[str, Any]:
    access = "ro" if inside.startswith("/usr/") else "rw"
    return {"destination": inside, "type": "bind", "source": str(outside), "options": ["rbind", access]}


def _device_rules() -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    rules += [{"allow": True, "type": kind, "access": "m"} for kind in "bc"]
    rules += [
        {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
        for major, minor in _DEVICES
    ]
    return [*rules, {"allow": True, "type": "c", "major": 136, "access": "rwm"}]


@contextlib.contextmanager
def new_root(directory: Path, program: Path) -> Iterator[Path]:
    """Mounts a root filesystem with the program alone: an overlay on a tmpfs, as engines do."""
    image = directory / "image"
    for name in ("bin", "etc", "root", "proc", "sys", "dev", "tmp", "run", "usr/local/bin"):
        (image / name).mkdir(parents=True)
    for name in ("bin/adversary", "bin/rpm", "usr/local/bin/kube-apiserver", "usr/local/bin/other"):
        shutil.copy(program, image / name)
    (image / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/true\n")
    for name in ("lib", "lib64", "sbin"):  # the host's, for its tools
        (image / name).symlink_to(f"usr/{name}")
    with overlaid(image, directory, "64m") as root:
        yield root
