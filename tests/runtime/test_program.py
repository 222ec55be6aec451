# SPDX-License-Identifier: Apache-2.0
"""The native init: that it is used, agrees with program.py, and what happens if it falls back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ringfence_runtime.launch import program
from tests.runtime.conftest import ROOT, Box

pytestmark = pytest.mark.root
SOURCE = (ROOT / "runtime/ringfence_runtime/native/interpreter.h").read_text()


def words(pid: int) -> list[str]:
    """Returns the arguments of a process."""
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]


def constant(name: str) -> int:
    """Returns a number that the C source defines."""
    found = re.search(rf"#define {name} \(?([0-9xa-f]+)u?(?: \* (\d+)\))?", SOURCE)
    assert found is not None, name
    return int(found[1], 0) * int(found[2] or 1)


def test_the_c_and_python_constants_agree() -> None:
    """The kinds of steps in their order, and every limit."""
    enumeration = re.search(r"enum \{\s*(CALL.*?),?\s*\};", SOURCE, re.DOTALL)
    assert enumeration is not None
    assert tuple(re.sub(r"\s+", "", enumeration[1]).lower().split(",")) == program.KINDS
    for name in ("MAGIC", "MOST_BYTES", "MOST_FDS", "MOST_SLOTS"):
        assert constant(name) == getattr(program, name), name
    assert f"sizeof(struct instruction) == {program.INSTRUCTION.size}" in SOURCE


def test_an_ordinary_container_waits_in_the_native_init(box: Box) -> None:
    """It uses less than a tenth of an interpreter's memory."""
    box.args("/bin/true").write()
    assert box.do("create", capture=False).returncode == 0
    pid = box.state()["pid"]
    assert words(pid) == ["ringfence-init"]
    status = Path(f"/proc/{pid}/status").read_text()
    assert int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) < 500
    assert box.do("start").returncode == 0
    box.wait("stopped")


@pytest.mark.parametrize("what", ["hooks", "user namespace"])
def test_unsupported_launches_use_the_python_init(box: Box, what: str) -> None:
    """The interpreter does the launches that the native init does not support."""
    if what == "hooks":
        box.config["hooks"] = {"startContainer": [{"path": "/bin/true"}]}
    else:
        box.config["linux"]["namespaces"].append({"type": "user"})
        ids = [{"containerID": 0, "hostID": 0, "size": 65536}]
        box.config["linux"].update(uidMappings=ids, gidMappings=ids)
    box.args("/bin/true").write()
    assert box.do("create", capture=False).returncode == 0
    assert words(box.state()["pid"])[0].endswith(("python3", "python3.11", "python3.13"))


def test_if_the_native_init_falls_back_python_executes_the_launch(box: Box) -> None:
    """A node that already exists in the image is not supported: the container still starts."""
    box.config["mounts"] = [
        each for each in box.config["mounts"] if not each["destination"].startswith("/dev")
    ]
    (box.rootfs / "dev").mkdir(exist_ok=True)
    for _ in range(2):  # the second time all nodes exist
        box.shell("ls -l /dev/null && echo fine > /dev/null && echo done")
        assert box.output().endswith("done\n")
    box.write()
    said = box.runtime("--debug", "run", box.name, cwd=box.directory).stderr
    assert "the native init fell back" in said
    assert box.do("create", capture=False).returncode == 0
    assert box.do("start").returncode == 0
    box.wait("stopped")
