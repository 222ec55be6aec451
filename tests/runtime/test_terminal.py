# SPDX-License-Identifier: Apache-2.0
"""A container's terminal that is connected to the caller's descriptors."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.runtime.conftest import Box
from tests.support.waiting import patience, wait_for

pytestmark = pytest.mark.root


def test_a_terminal_takes_more_than_it_holds(box: Box, tmp_path: Path) -> None:
    """A workload that writes while it receives input:
    waiting for one direction alone would deadlock.
    """
    size = 300_000
    # Writes much before it reads.
    deaf = "dd bs=1 count=1 of=/dev/null 2>/dev/null; head -c 1000000 /dev/zero"
    box.config["process"]["terminal"] = True
    box.shell(f"stty raw -echo; echo ready; {deaf}; exec head -c {size}").write()
    typed, shown = tmp_path / "typed", tmp_path / "shown"
    typed.write_bytes(b"".join(b"%06d\n" % number for number in range(size // 7 + 1)))
    typing = f"until grep -q ready {shown}; do sleep 0.02; done; exec cat {typed}"
    command = [str(box.runtime.executable), "--root", str(box.runtime.root), "run", box.name]
    with (
        shown.open("wb") as output,
        subprocess.Popen(["sh", "-c", typing], stdout=subprocess.PIPE) as user,
        subprocess.Popen(command, cwd=box.directory, stdin=user.stdout, stdout=output) as process,
    ):
        assert user.stdout is not None
        user.stdout.close()
        try:
            assert process.wait(patience(60)) == 0
        finally:
            box.do("delete", "--force")
            process.kill()
            user.kill()
    expected = bytes(1_000_000) + typed.read_bytes()[1 : size + 1]
    assert shown.read_bytes().partition(b"ready\n")[2] == expected


def test_lines_end_in_lf_where_a_script_reads_them(box: Box, tmp_path: Path) -> None:
    """As with runc, whose users compare the output of `run` and `exec -t`; a terminal gets CR LF."""
    command = [str(box.runtime.executable), "--root", str(box.runtime.root)]

    def output(*words: str) -> bytes:
        got = subprocess.run(
            [*command, *words], cwd=box.directory, stdin=subprocess.DEVNULL, capture_output=True, check=True
        )
        return got.stdout

    box.config["process"]["terminal"] = True
    box.shell("echo one; echo two").write()
    assert output("run", box.name) == b"one\ntwo\n"
    box.shell("exec sleep 3600").write()
    with subprocess.Popen([*command, "run", box.name], cwd=box.directory, stdin=subprocess.PIPE):
        try:
            wait_for(lambda: box.do("state").returncode == 0, "its state")
            box.wait("running")
            assert output("exec", "--tty", box.name, "echo", "three") == b"three\n"
            shown = tmp_path / "shown"
            words = " ".join([*command, "exec", "--tty", box.name, "echo", "four"])
            script = ["script", "-qec", words, str(shown)]
            subprocess.run(script, stdin=subprocess.DEVNULL, capture_output=True, check=True)
            assert b"four\r\n" in shown.read_bytes()
            assert b"\r\r" not in shown.read_bytes()
        finally:
            box.do("delete", "--force")
