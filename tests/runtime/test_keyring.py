# SPDX-License-Identifier: Apache-2.0
"""The session keyring: a container has one of its own, which exec shares, and never its starter's."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

import pytest

from ringfence_linux import syscalls
from ringfence_runtime.errors import Error
from ringfence_runtime.launch.keyring import join_keyring
from tests.runtime.conftest import Box
from tests.runtime.programs import add_program
from tests.support.waiting import wait_for

pytestmark = pytest.mark.root
BOTH_INITS = True

# keys hold WORDS...  : runs WORDS in a new session keyring that holds a key of that name
# keys add NAME       : adds a key to the session keyring
# keys find NAME      : prints the contents of the key of that name, if the session keyring has one
KEYS = r"""
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
enum { JOIN = 1, SEARCH = 10, READ = 11, SESSION = -3 };
static long add(const char *name)
{
	return syscall(SYS_add_key, "user", name, "of the host", 11, SESSION);
}
int main(int count, char **words)
{
	if (!strcmp(words[1], "hold")) {
		if (syscall(SYS_keyctl, JOIN, NULL) < 0 || add(words[2]) < 0)
			return 90;
		execvp(words[3], &words[3]);
		return 91;
	}
	if (!strcmp(words[1], "add"))
		return add(words[2]) < 0;
	char text[20] = "";
	long key = syscall(SYS_keyctl, SEARCH, SESSION, "user", words[2], 0);
	if (key < 0)
		return puts("none") < 0;
	if (syscall(SYS_keyctl, READ, key, text, sizeof(text)) < 0)
		return puts("unreadable") < 0;
	return puts(text) < 0;
}
"""
NAME = "rftest-key"


def found_by(box: Box, *words: str) -> str:
    """Returns the output of a runtime command whose caller has a secret in its session keyring."""
    base = [str(box.rootfs / "bin/keys"), "hold", NAME, str(box.runtime.executable), "--root"]
    got = subprocess.run(
        [*base, str(box.runtime.root), *words], cwd=box.directory, capture_output=True, text=True, check=False
    )
    assert got.returncode == 0, got.stderr
    return got.stdout.strip()


@pytest.fixture
def keys(box: Box) -> Box:
    """A container with the program above."""
    add_program(box.rootfs, "keys", KEYS)
    return box


@pytest.mark.parametrize("shared", [False, True])
def test_run_and_exec_see_the_callers_keys_only_where_they_are_shared(keys: Box, shared: bool) -> None:
    """--no-new-keyring of the container decides for
    exec, too; the twin shows that the key can be found.
    """
    options = ["--no-new-keyring"] if shared else []
    expected = "of the host" if shared else "none"
    keys.args("/bin/keys", "find", NAME).write()
    assert found_by(keys, "run", *options, keys.name) == expected
    keys.args("/bin/sleep", "3600").write()
    assert keys.do("run", "--detach", *options, capture=False).returncode == 0
    assert found_by(keys, "exec", keys.name, "/bin/keys", "find", NAME) == expected


def test_an_exhausted_quota_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a keyring of its own the workload would have the caller's."""

    def no_more(name: str) -> int:
        raise OSError(errno.EDQUOT, "keyctl: Disk quota exceeded", name)

    monkeypatch.setattr(syscalls, "keyctl_join_session", no_more)
    with pytest.raises(Error, match="quota of keys"):
        join_keyring("x")


def test_exec_is_in_the_containers_keyring(keys: Box) -> None:
    """exec finds the keys that the first process stored there."""
    ready = keys.rootfs / "ready"
    keys.shell(f"keys add {NAME} && touch /ready; exec sleep 3600").start()
    wait_for(ready.exists, "the key is there")
    assert keys.exec("/bin/keys", "find", NAME).stdout == "of the host\n"


def test_a_process_of_another_container_finds_nothing(boxes: object, keys: Box, tmp_path: Path) -> None:
    """Each has its own."""
    assert callable(boxes)
    other: Box = boxes()
    add_program(other.rootfs, "keys", KEYS)
    keys.shell(f"keys add {NAME} && touch /ready; exec sleep 3600").start()
    wait_for((keys.rootfs / "ready").exists, "the key is there")
    assert other.args("/bin/keys", "find", NAME).output() == "none\n"
