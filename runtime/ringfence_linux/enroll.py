# SPDX-License-Identifier: Apache-2.0
"""The enrolment protocol: its messages and limits, for the agent that listens and the runtime that asks.

A request is one packet of JSON (SOCK_SEQPACKET) with descriptors: the container's cgroup in each hierarchy,
its config.json, perhaps a policy file. The answer is one packet. Both are strict JSON.
"""

from __future__ import annotations

from ringfence_linux import strictjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = [
    "CGROUP",
    "CONFIG",
    "MAX_BYTES",
    "MAX_FDS",
    "MAX_POLICIES",
    "POLICY",
    "SECONDS_OPTIONAL",
    "SECONDS_REQUIRED",
    "SECONDS_TO_SPEAK",
    "SOCKET",
    "SOCKET_NAME",
    "VARIABLE",
    "WASM",
    "Answer",
    "Request",
]

SOCKET_NAME = "enroll.sock"
SOCKET = f"/run/ringfence/{SOCKET_NAME}"
#: the environment variable that names another socket
VARIABLE = "RINGFENCE_ENROLL_SOCKET"
#: of a request, and of an answer
MAX_BYTES = 1 << 16
MAX_FDS = 32
MAX_POLICIES = 64
_MAX_ERROR = 8192
_MAX_FILE = 4096
#: the agent closes a connection that has sent no request for so long
SECONDS_TO_SPEAK = 5.0
#: the runtime waits so long for the answer: if the container needs an agent, and if it does not
SECONDS_REQUIRED, SECONDS_OPTIONAL = 15.0, 2.0
#: what a descriptor is
CGROUP, CONFIG, POLICY = "cgroup", "config", "policy"
#: the handler of a WebAssembly module
WASM = "wasm"


class Request:
    """The runtime asks for a container to be enrolled before its workload runs."""

    __slots__ = ("certain", "container", "fds", "file", "handler", "policies")

    def __init__(
        self,
        container: str,
        policies: Sequence[str],
        fds: Sequence[str],
        *,
        file: str = "",
        certain: bool = False,
        handler: str = "",
    ) -> None:
        self.container = container
        self.policies = tuple(policies)
        """names of policies that the agent has loaded"""
        self.fds = tuple(fds)
        """what each descriptor is, in their order"""
        self.file = file
        """the name of the policy file"""
        self.certain = certain
        """no engine knows more about the container than its configuration"""
        self.handler = handler
        """how the runtime executes the program: WASM, or empty for a native one"""

    def encode(self) -> bytes:
        """One packet."""
        return strictjson.dumps(
            {
                "id": self.container,
                "policies": self.policies,
                "file": self.file,
                "certain": self.certain,
                "handler": self.handler,
                "fds": self.fds,
            }
        ).encode("ascii")

    @classmethod
    def decode(cls, data: bytes, descriptors: int) -> Request:
        """A packet that came with so many descriptors. ValueError says what is wrong with the request."""
        try:
            body = strictjson.loads(data)
        except ValueError as error:
            raise ValueError(f"the request is not JSON: {error}") from None
        fds = body.get("fds") if isinstance(body, dict) else None
        if not isinstance(fds, list) or len(fds) != descriptors:
            raise ValueError("the request does not fit its descriptors")
        policies = body.get("policies", [])
        if not isinstance(policies, list) or not all(isinstance(name, str) for name in policies):
            raise ValueError("the request's `policies` are not names")
        return cls(
            str(body.get("id")),
            policies[:MAX_POLICIES],
            [str(name) for name in fds],
            file=str(body.get("file", "policy"))[:_MAX_FILE],
            certain=body.get("certain") is True,
            handler=WASM if body.get("handler") == WASM else "",
        )


class Answer:
    """`ok` only after the agent has read the container's entry back from the kernel."""

    __slots__ = ("error", "hint", "ok", "policies")

    def __init__(self, *, ok: bool, policies: Any = None, error: str = "", hint: str = "") -> None:
        self.ok = ok
        self.policies = policies
        """that hold for the container"""
        self.error = error
        self.hint = hint

    def encode(self) -> bytes:
        """One packet."""
        body = {"ok": True, "policies": self.policies} if self.ok else self._refusal()
        return strictjson.dumps(body).encode("ascii")

    def _refusal(self) -> dict[str, Any]:
        return {"ok": False, "error": self.error[:_MAX_ERROR], "hint": self.hint}

    @classmethod
    def decode(cls, data: bytes) -> Answer:
        """A packet; an empty one is the end of the connection. ValueError if it is not strict JSON."""
        if not data:
            return cls(ok=False, error="the agent ended")
        body = strictjson.loads(data)
        if not isinstance(body, dict):
            return cls(ok=False, error="an answer of another kind")
        ok, policies = body.get("ok") is True, body.get("policies")
        return cls(ok=ok, policies=policies, error=str(body.get("error")), hint=str(body.get("hint") or ""))
