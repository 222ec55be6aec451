# SPDX-License-Identifier: Apache-2.0
"""--no-pivot, for hosts whose root is a ramfs: the host's tree is out of reach there, too.

The attacks look for a file of the test outside the root filesystem, and read it at most.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime.conftest import Box
from tests.runtime.programs import add_program

pytestmark = pytest.mark.root
BOTH_INITS = True

# chroot(2) does not change the working directory, so a second one leaves a process above its root:
# `..` then climbs to the root of the mount tree, and a third makes that its root.
CLIMB = r"""
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
int main(int count, char **words)
{
	char text[100] = "";
	mkdir("/below", 0700);
	if (chroot("/below")) {
		puts("cannot chroot");
		return 1;
	}
	for (int i = 0; i < 100; i++)
		if (chdir(".."))
			return 2;
	if (chroot("."))
		return 3;
	int fd = open(words[1], O_RDONLY);
	if (fd < 0) {
		puts("inside");
		return 0;
	}
	read(fd, text, sizeof(text) - 1);
	printf("outside: %s\n", text);
	return 0;
}
"""


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the host."""
    path = tmp_path / "secret"
    path.write_text("of the host")
    return path


def chrooting(box: Box) -> Box:
    """With the capability that an escape by chroot needs; Docker grants it by default."""
    for names in box.config["process"]["capabilities"].values():
        names.append("CAP_SYS_CHROOT")
    return box


def run(box: Box, *options: str) -> tuple[str, str]:
    """(output, errors) of a run in the foreground."""
    box.write()
    got = box.do("run", *options)
    return got.stdout, got.stderr


@pytest.mark.parametrize("options", [(), ("--no-pivot",)], ids=["pivot", "no-pivot"])
def test_a_second_chroot_does_not_lead_out(box: Box, secret: Path, options: tuple[str, ...]) -> None:
    """The oldest escape: a root that is only a chroot is left by a second chroot."""
    chrooting(box).args(add_program(box.rootfs, "climb", CLIMB), str(secret))
    assert run(box, *options) == ("inside\n", "")


def test_a_joined_mount_namespace_shows_the_containers_root(box: Box, secret: Path) -> None:
    """`exec` enters the namespace, whose root must be the container's."""
    box.write()
    assert box.do("run", "--detach", "--no-pivot", capture=False).returncode == 0
    assert box.exec("/bin/cat", str(secret)).returncode != 0
    assert box.exec("/bin/ls", "/").stdout == box.exec("/bin/ls", f"/proc/1/root/{'../' * 20}").stdout


@pytest.mark.parametrize("masked", [True, False])
def test_no_host_procfs_allows_mounting_a_new_one(box: Box, masked: bool) -> None:
    """In a user namespace a procfs can be mounted where a complete one is visible
    (mount_too_revealing in the kernel).

    The visible one is the container's own, partly covered by masks; the host's must not be left
    below.
    """
    if not masked:  # the twin: the same is allowed where nothing is covered
        box.config["linux"] |= {"maskedPaths": [], "readonlyPaths": []}
    box.config["process"]["user"] = {"uid": 1000, "gid": 1000}
    box.shell("unshare -Urmpf mount -t proc proc /tmp && echo mounted; echo end")
    said, errors = run(box, "--no-pivot")
    assert said.split() == (["end"] if masked else ["mounted", "end"]), errors
