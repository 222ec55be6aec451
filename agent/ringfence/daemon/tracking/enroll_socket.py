# SPDX-License-Identifier: Apache-2.0
"""The enrolment socket: a runtime gets its container into the kernel's maps before the first
instruction runs.

Ringfence's runtime connects before it starts a workload. In one message it names the container's
cgroup and the policies that it wants, and waits for the answer. A request is one packet of JSON
with descriptors (the container's cgroup in each hierarchy, its config.json, perhaps a policy
file). The answer is one packet, too: `{"ok": true, ...}` only after the entry has been read back
from the kernel. So cgroups whose name matches no pattern are enrolled as well. A descriptor means
the same in every namespace, and cannot be swapped like a path.

The socket has mode 0600. The peer must be root or the agent's own user, and in no container: root
of a container could give it another name and other policies.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from prometheus_client.core import Metric

from ringfence import log
from ringfence.containers.enrich import safejson
from ringfence.containers.enrich.bundles import safe_name
from ringfence.containers.enrich.oci import facts_of_config
from ringfence.containers.model import Enrichment, Facts
from ringfence.daemon.loop import Loop
from ringfence.daemon.policies.manager import PolicyManager
from ringfence.daemon.tracking.enrolment import Enrolment
from ringfence.daemon.tracking.enrolment_store import EnrolmentRecord, EnrolmentStore
from ringfence.errors import Error
from ringfence.export import families
from ringfence.faults import ACCEPT_PAUSE, cannot_accept
from ringfence.files import SocketFile
from ringfence_linux import enroll
from ringfence_linux.peercred import is_trusted, peer

__all__ = ["EnrollSocket"]

_MAX_CALLERS = 64


@dataclass(slots=True)
class _Caller:
    connection: socket.socket
    since: float = field(default_factory=time.monotonic)

    def keep(self) -> None:
        """Its request is here: from now on it waits for the agent, however long that takes."""
        self.since = float("inf")


class EnrollSocket:
    """Runs in the loop. `enrolment` writes and reads back the kernel maps; `refuses` rejects a
    peer.
    """

    def __init__(
        self,
        path: Path,
        loop: Loop,
        enrolment: Enrolment,
        manager: PolicyManager,
        store: EnrolmentStore,
        refuses: Callable[[socket.socket], bool] = lambda connection: False,
    ) -> None:
        self.path, self._loop, self._enrolment, self._manager, self._store = (
            path,
            loop,
            enrolment,
            manager,
            store,
        )
        self._refuses = refuses
        self._callers: dict[int, _Caller] = {}
        self._listener: socket.socket | None = None
        self._file: SocketFile | None = None
        self._log = log.get_logger("enroll")
        self._results: Counter[str] = Counter({"enrolled": 0, "refused": 0, "busy": 0})

    @property
    def capacity(self) -> tuple[int, int]:
        """Callers that wait for their answer, and the maximum."""
        return len(self._callers), _MAX_CALLERS

    def samples(self) -> Iterator[Metric]:
        """Requests by result, and callers that wait."""
        yield families.counters(
            "ringfence_enrolments", "Enrolment requests of container runtimes, by result.", "result",
            self._results,
        )  # fmt: skip
        yield from families.capacity("enrolments", self.capacity)

    def start(self) -> None:
        """Listen. Raises OSError."""
        self._listen()
        self._loop.every(enroll.SECONDS_TO_SPEAK, self._expire)

    def _listen(self) -> None:
        self._listener = _listen(self.path)
        self._file = SocketFile(self.path)
        self._loop.watch(self._listener.fileno(), self._accept)

    def as_left(self) -> bool:
        """Returns True if runtimes reach the socket by its path, or if it does not listen yet."""
        return self._file is None or self._file.is_there()

    def renew(self) -> None:
        """Create the socket's file again. Raises OSError."""
        if self._listener is not None:
            self._loop.forget(self._listener.fileno())
            self._listener.close()
        self._listen()

    def close(self) -> None:
        """Stop listening, and close the connections of waiting callers."""
        for caller in list(self._callers.values()):
            self._drop(caller.connection)
        if self._listener is not None:
            self._loop.forget(self._listener.fileno())
            self._listener.close()
            with contextlib.suppress(OSError):
                self.path.unlink()

    def _accept(self) -> None:
        assert self._listener is not None
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if cannot_accept(error):
                    self._loop.forget(self._listener.fileno())
                    self._loop.later(ACCEPT_PAUSE, self._listen_again)
                return
            connection.setblocking(False)
            if len(self._callers) >= _MAX_CALLERS:
                self._results["busy"] += (
                    1  # the runtime sees the end of the connection, and decides what to do
                )
                connection.close()
                continue
            if not _trusted(connection) or self._refuses(connection):
                connection.close()
                continue
            self._callers[connection.fileno()] = _Caller(connection)
            # A runtime sends its request at once, so mostly it is here already.
            self._receive(connection)

    def _listen_again(self) -> None:
        if self._listener is not None and self._listener.fileno() >= 0:
            self._loop.watch(self._listener.fileno(), self._accept)

    def _receive(self, connection: socket.socket) -> None:
        fds: list[int] = []
        try:
            data, fds, flags, _ = socket.recv_fds(connection, enroll.MAX_BYTES, enroll.MAX_FDS)
        except BlockingIOError:
            self._loop.watch(connection.fileno(), lambda: self._receive(connection))
            return
        except OSError:
            data, flags = b"", 0
        self._loop.forget(connection.fileno())
        try:
            if not data:
                self._drop(connection)
            elif flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                self._refuse(connection, "the request is too long")
            else:
                self._serve(connection, data, fds)
        except Error as error:
            self._refuse(connection, error.message, error.hint)
        except safejson.Unusable as error:
            self._refuse(connection, f"the request {error}")
        except Exception as error:  # a bug must not end the loop, which serves all parts
            self._refuse(connection, f"internal error: {type(error).__name__}: {error}")
        finally:
            for fd in fds:
                with contextlib.suppress(OSError):
                    os.close(fd)

    def _serve(self, connection: socket.socket, data: bytes, fds: list[int]) -> None:
        request = _Request.of(data, fds)
        if request.policy_file is None:
            self._enter(
                connection, request.facts, request.name, request.chosen, request.cgroup(self._enrolment)
            )
            return
        # The descriptors are closed when this returns; what is needed later is taken now.
        cgroup = request.cgroup(self._enrolment)
        keep = os.dup(cgroup)

        file, data = request.policy_name, request.policy_file

        def done(key: str, problem: str) -> None:
            try:
                if problem:
                    self._refuse(connection, f"the policy file is refused: {problem}")
                else:
                    self._store.keep_file(key, file, data)
                    self._enter(connection, request.facts, request.name, (*request.chosen, key), keep)
            except Error as error:
                self._refuse(connection, error.message, error.hint)
            except Exception as error:  # as above
                self._refuse(connection, f"internal error: {type(error).__name__}: {error}")
            finally:
                os.close(keep)
                if key:
                    self._store.release(key)  # where it was not enrolled

        self._callers[connection.fileno()].keep()
        self._manager.add(file, data, done)

    def restore(self) -> None:
        """Enroll the containers that an earlier agent had enrolled. Call in the loop's thread,
        before tasks are armed. Their own policy files follow as soon as the loop runs.
        """
        for record in self._store.records():
            keys = tuple(word for word in record.chosen if ":" in word)
            names = tuple(word for word in record.chosen if ":" not in word)
            if not self._enrolment.enter_again(record, names):
                self._store.forget(record.cgroup_id)
            elif keys:
                self._add_again(record, keys[0])

    def _add_again(self, record: EnrolmentRecord, key: str) -> None:
        kept = self._store.file(key)

        def done(found: str, problem: str) -> None:
            if problem or not self._enrolment.enter_again(record, record.chosen):
                self._log.error(
                    "a container is without its policy file", container=record.name, reason=problem
                )

        if kept is None:
            done("", "the file does not exist any more")
        else:
            self._manager.add(*kept, done)

    def _enter(
        self, connection: socket.socket, facts: Facts, name: str, chosen: tuple[str, ...], cgroup: int
    ) -> None:
        policies = self._enrolment.enter(cgroup, facts, name, chosen)
        self._results["enrolled"] += 1
        self._answer(connection, enroll.Answer(ok=True, policies=policies))

    def _refuse(self, connection: socket.socket, message: str, hint: str = "") -> None:
        self._results["refused"] += 1
        self._log.warning("a container is refused", reason=message[:500])
        self._answer(connection, enroll.Answer(ok=False, error=message, hint=hint))

    def _answer(self, connection: socket.socket, answer: enroll.Answer) -> None:
        with contextlib.suppress(OSError):
            connection.send(answer.encode())
        self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        fd = connection.fileno()
        if fd >= 0:
            self._loop.forget(fd)
            self._callers.pop(fd, None)
            connection.close()

    def _expire(self) -> None:
        now = time.monotonic()
        for caller in list(self._callers.values()):
            if now - caller.since > enroll.SECONDS_TO_SPEAK:
                self._drop(caller.connection)


class _Request:
    """A checked request."""

    def __init__(self, request: enroll.Request, fds: dict[str, list[int]]) -> None:
        self.name, self.chosen = request.container, request.policies
        if not safe_name(self.name):
            raise Error("the request names no container")
        self._cgroups = fds.get(enroll.CGROUP, [])
        if any(":" in name for name in self.chosen):  # the keys of files, which must come with their file
            raise Error("the request's `policies` are not names")
        self.policy_name = request.file
        given = fds.get(enroll.POLICY, [])
        self.policy_file = safejson.read_open(given[0]) if given else None
        facts = _facts(fds.get(enroll.CONFIG, []), certain=request.certain)
        self.facts = replace(facts, handler=request.handler)

    @classmethod
    def of(cls, data: bytes, fds: list[int]) -> _Request:
        """Raises Error with what is wrong."""
        try:
            request = enroll.Request.decode(data, len(fds))
        except ValueError as error:
            raise Error(str(error)) from None
        named: dict[str, list[int]] = {}
        for name, fd in zip(request.fds, fds, strict=True):
            named.setdefault(name, []).append(fd)
        return cls(request, named)

    def cgroup(self, enrolment: Enrolment) -> int:
        """The descriptor in the hierarchy that identifies containers."""
        for fd in self._cgroups:
            if enrolment.suits(fd):
                return fd
        raise Error(
            "no cgroup of the container lies in the hierarchy that the agent uses",
            hint="`ringfence status` names it",
        )


def _facts(config: list[int], *, certain: bool) -> Facts:
    """Facts of config.json. If an engine may know more than the bundle (not `certain`), it is
    still asked.
    """
    if not config:
        return Facts(Enrichment.DONE if certain else Enrichment.PENDING)
    facts = facts_of_config(safejson.parse(safejson.read_open(config[0])), source="ringfence-runtime")
    if certain:
        return replace(facts, runtime="ringfence")
    return replace(facts, enrichment=Enrichment.PENDING, runtime="")


def _trusted(connection: socket.socket) -> bool:
    _, uid, _ = peer(connection)
    return is_trusted(uid)


def _listen(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(128)
    return listener
