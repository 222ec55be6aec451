# SPDX-License-Identifier: Apache-2.0
"""The image's configuration as hostile text, and users from the image's own files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence_runtime.images import ImageError, Imported, resolve_user
from ringfence_runtime.images.errors import LayoutError, LimitError
from ringfence_runtime.images.process import DEFAULT_PATH
from tests.runtime.images.layouts import file, layer

Load = Callable[..., Imported]
ONE = layer(file(b"one"))


def test_defaults_and_overrides(load: Load) -> None:
    """Entrypoint, command and environment are merged like Docker's."""
    config = {
        "Entrypoint": ["/bin/app", "-x"],
        "Cmd": ["a"],
        "Env": ["PATH=/bin", "A=1", "A=2"],
        "WorkingDir": "/srv//./app/../web",
        "User": "app",
        "Volumes": {"/data/": {}, "/data": {}},
        "ExposedPorts": {"80/tcp": {}, "evil/../..": {}},
        "Labels": {"a": "b"},
        "StopSignal": "SIGQUIT",
    }
    process = load(ONE, config=config).image.process
    assert process.args() == ["/bin/app", "-x", "a"]
    assert process.args(["b"]) == ["/bin/app", "-x", "b"]
    assert process.args(["b"], entrypoint=["/bin/sh"]) == ["/bin/sh", "b"]
    assert process.environment(["B=3"], home="/root") == ["PATH=/bin", "A=2", "B=3", "HOME=/root"]
    assert (process.cwd, process.user, process.volumes) == ("/srv/web", "app", ["/data"])
    assert (process.ports, process.labels, process.stop_signal) == (["80/tcp"], {"a": "b"}, "SIGQUIT")


def test_empty_config(load: Load) -> None:
    """An empty configuration gives a PATH, a root directory and no command."""
    process = load(ONE).image.process
    assert process.environment() == [f"PATH={DEFAULT_PATH}"]
    assert (process.cwd, process.stop_signal) == ("/", "SIGTERM")
    with pytest.raises(ImageError, match="no command"):
        process.args()


@pytest.mark.parametrize(
    "config",
    [
        {"Env": ["NOEQUALS"]},
        {"Env": ["=x"]},
        {"Env": ["A=\0"]},
        {"Env": "A=1"},
        {"Env": [1]},
        {"Cmd": {"a": 1}},
        {"Entrypoint": ["a\0b"]},
        {"WorkingDir": "relative"},
        {"WorkingDir": "/a\nb"},
        {"User": "a\x1b[2J"},
        {"User": "x" * 300},
        {"Labels": {"a": 1}},
        {"StopSignal": "SIGTERM; rm -rf /"},
        {"Volumes": ["/data"]},
        {"Volumes": {"relative": {}}},
        {"Volumes": {"/": {}}},
        {"Volumes": {"/proc/sys": {}}},
        {"Volumes": {"/dev": {}}},
    ],
)
def test_hostile_config(config: dict[str, Any], load: Load) -> None:
    """Each is refused with the path of the member."""
    with pytest.raises(LayoutError, match=r"config"):
        load(ONE, config=config)


def test_config_sizes(load: Load) -> None:
    """Millions of environment variables, labels and volumes are refused."""
    with pytest.raises(LimitError):
        load(ONE, config={"Env": ["A=" + "x" * 100] * 5000})
    with pytest.raises(LimitError):
        load(ONE, config={"Volumes": {f"/v{number}": {} for number in range(5000)}})
    with pytest.raises(LimitError):
        load(ONE, config={"Labels": {"a": "x" * (2 << 20)}})


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """A root filesystem with users, open."""
    etc = tmp_path / "root/etc"
    etc.mkdir(parents=True)
    (etc / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\n"
        "broken line\n"
        "app:x:1000:1001:App:/home/app:/bin/sh\n"
        "other:x:1000:7::/other:/bin/sh\n"
        "2000:x:5:5::/five:/bin/sh\n"
        "huge:x:4294967296:0::/:/bin/sh\n"
        "badhome:x:6:6::rel\x1b:/bin/sh\n"
    )
    (etc / "group").write_text("root:x:0:\nwheel:x:10:app,other\nvideo:x:44:app\nbad:x:y:app\n")
    fd = os.open(tmp_path / "root", os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", (0, 0, (), "/root")),
        ("root", (0, 0, (), "/root")),
        ("app", (1000, 1001, (10, 44), "/home/app")),
        ("1000", (1000, 1001, (10, 44), "/home/app")),
        ("app:video", (1000, 44, (), "/home/app")),
        ("app:77", (1000, 77, (), "/home/app")),
        ("3000", (3000, 0, (), "/")),
        ("3000:10", (3000, 10, (), "/")),
        ("2000", (5, 5, (), "/five")),
        (":wheel", (0, 10, (), "/root")),
        ("badhome", (6, 6, (), "/")),
    ],
)
def test_resolve_user(spec: str, expected: tuple[int, int, tuple[int, ...], str], root: int) -> None:
    """Names, numbers and mixtures, as Docker reads them."""
    user = resolve_user(root, spec)
    assert (user.uid, user.gid, user.groups, user.home) == expected


@pytest.mark.parametrize("spec", ["nobody", "app:nogroup", "broken line", "huge", "app:bad", "-1", "0x10"])
def test_unknown_user(spec: str, root: int) -> None:
    """A name that the image lacks (or has only in an invalid line) is an error, never root."""
    with pytest.raises(ImageError, match="has no"):
        resolve_user(root, spec)


@pytest.mark.parametrize("trick", ["escape", "magic link", "fifo", "device", "directory", "huge", "none"])
def test_hostile_passwd(trick: str, root: int, tmp_path: Path) -> None:
    """/etc/passwd of an image may be any file: nothing of the host is read, and nothing blocks."""
    path = tmp_path / "root/etc/passwd"
    path.unlink()
    (tmp_path / "passwd").write_text("host:x:12:12::/:\n")
    if trick == "escape":
        path.symlink_to("../../passwd")
    elif trick == "magic link":
        path.symlink_to(f"/proc/{os.getpid()}/root{tmp_path}/passwd")
    elif trick == "fifo":
        os.mkfifo(path)
    elif trick == "device":
        os.mknod(path, 0o20666, os.makedev(1, 5))  # /dev/zero
    elif trick == "directory":
        path.mkdir()
    elif trick == "huge":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    with pytest.raises(ImageError):
        resolve_user(root, "host")


def test_symlink_inside_the_image_is_followed(root: int, tmp_path: Path) -> None:
    """An absolute link of the image is resolved in the image's root (as on NixOS)."""
    etc = tmp_path / "root/etc"
    (etc / "passwd").rename(etc / "real")
    (etc / "passwd").symlink_to("/etc/real")
    assert resolve_user(root, "app").uid == 1000
