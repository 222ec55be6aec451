# SPDX-License-Identifier: Apache-2.0
"""Enrolment with the agent: the container's entry is in the kernel's maps before its workload executes.

The runtime sends the request when the cgroup exists. The agent works while the container is set up, and
must answer before the workload may run. Without an agent the runtime's own restrictions hold, unless
--require-agent, --policy, or the annotations of an engine's container demand an agent. Annotations are
text from the container's author (CVE-2022-23648): they name policies that the agent has loaded, never a
file.
"""

from __future__ import annotations

import _socket
import os
from _struct import pack

from ringfence_linux import enroll
from ringfence_linux.cgroups import CONTROLLERS
from ringfence_runtime import log
from ringfence_runtime.errors import Error, SpecError
from ringfence_runtime.spec.config import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.launch.plan import Options
    from ringfence_runtime.launch.waiting import Task
    from ringfence_runtime.spec.config import Config
    from ringfence_runtime.state import Container

__all__ = ["POLICY", "REQUIRE", "Talk", "announce"]

POLICY, REQUIRE = "ringfence.io/policy", "ringfence.io/require-agent"
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-")
_SCM_RIGHTS = 1


class Talk:
    """A request that was sent. `confirm` waits for the answer."""

    __slots__ = ("needed", "seconds", "sock")

    def __init__(self, sock: _socket.socket, *, needed: bool) -> None:
        self.sock = sock
        self.needed = needed
        self.seconds = _seconds(needed)

    def fileno(self) -> int:
        return self.sock.fileno()

    def confirm(self) -> Task[None]:
        """Returns when the kernel has the container's entry. Raises Error if it has none but must."""
        try:
            yield self
            answer = enroll.Answer.decode(self.sock.recv(enroll.MAX_BYTES))
        except TimeoutError:
            answer = enroll.Answer(ok=False, error="the agent does not answer")
        except (OSError, ValueError) as error:
            answer = enroll.Answer(ok=False, error=f"the agent cannot be understood: {error}")
        finally:
            self.sock.close()
        if answer.ok:
            log.debug(f"the agent holds the container under {answer.policies}")
            return
        _fail(f"the agent did not take the container: {answer.error}", answer.hint, needed=self.needed)


def announce(config: Config, options: Options, container: Container) -> Talk | None:
    """Sends the agent a container, the cgroup of which exists. Returns None if there is no agent and
    none is needed.
    """
    names = _chosen(config)
    needed = bool(names or options.policy or options.require_agent or _required(config))
    path = os.environ.get(enroll.VARIABLE, enroll.SOCKET)
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    sock.settimeout(_seconds(needed))
    fds: list[int] = []
    try:
        sock.connect(path)
        _check_peer(sock, path)
        _send(sock, names, options, container, fds, config.handler)
    except (OSError, Error) as error:
        sock.close()
        absent = isinstance(error, FileNotFoundError | ConnectionRefusedError)
        absent = absent or (os.geteuid() != 0 and isinstance(error, PermissionError))  # only for root
        if absent and not needed:
            return None
        text = error.message if isinstance(error, Error) else error.strerror or str(error)
        what = f"no agent listens on {path}" if absent else f"the agent at {path}: {text}"
        _fail(what, "start one with `ringfence agent`" if absent else "", needed=needed)
        return None
    finally:
        for fd in fds:
            os.close(fd)
    return Talk(sock, needed=needed)


def _seconds(needed: bool) -> float:
    return enroll.SECONDS_REQUIRED if needed else enroll.SECONDS_OPTIONAL


def _fail(what: str, hint: str, *, needed: bool) -> None:
    if needed:
        raise Error(what, hint=hint)
    log.warn(f"{what}; the runtime's own restrictions hold")


def _check_peer(sock: _socket.socket, path: str) -> None:
    """Only root, or the runtime's own user, may confirm that a container is enrolled."""
    from ringfence_linux.peercred import is_trusted, peer

    _, uid, _ = peer(sock)
    if not is_trusted(uid):
        raise Error(f"{path} belongs to user {uid}")


def _send(
    sock: _socket.socket,
    names: list[str],
    options: Options,
    container: Container,
    fds: list[int],
    handler: str,
) -> None:
    kinds: list[str] = []

    def add(kind: str, path: str, flags: int) -> None:
        fds.append(os.open(path, flags | os.O_CLOEXEC))
        kinds.append(kind)

    for path in _directories(container):
        add(enroll.CGROUP, path, os.O_PATH | os.O_DIRECTORY)
    add(enroll.CONFIG, f"{container.directory}/config.json", os.O_RDONLY)
    file = ""
    if options.policy and _is_file(options.policy):
        file = os.path.abspath(options.policy)
        read_file(file)  # reports what is wrong with it
        add(enroll.POLICY, file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    elif options.policy:
        names = [*names, *_names(options.policy, "--policy")]
    request = enroll.Request(container.id, names, kinds, file=file, certain=options.certain, handler=handler)
    rights = (_socket.SOL_SOCKET, _SCM_RIGHTS, pack(f"{len(fds)}i", *fds))
    sock.sendmsg([request.encode()], [rights], _socket.MSG_NOSIGNAL)


def _directories(container: Container) -> list[str]:
    found: list[str] = []
    for path in (*(container.cgroup.directory(name) for name in CONTROLLERS), container.cgroup.unified):
        if path and path not in found:
            found.append(path)
    return found


def _is_file(policy: str) -> bool:
    return "/" in policy or policy.endswith((".yaml", ".yml"))


def _names(text: str, where: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if not name or set(name) - _LETTERS:
            raise Error(f"{where}: {name!a} is not the name of a policy")
    return names


def _chosen(config: Config) -> list[str]:
    text = config.annotations.get(POLICY, "")
    if not text:
        return []
    if set(text) - _LETTERS - {","} or "" in text.split(","):
        raise SpecError(f"annotations.{POLICY}", f"{text[:80]!a} is not a list of names of policies")
    return text.split(",")


def _required(config: Config) -> bool:
    text = config.annotations.get(REQUIRE, "false")
    if text not in ("true", "false"):
        raise SpecError(f"annotations.{REQUIRE}", f"{text[:80]!a} is neither true nor false")
    return text == "true"
