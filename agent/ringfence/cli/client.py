# SPDX-License-Identifier: Apache-2.0
"""The client side of the agent's socket."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ringfence.config.load import check_variables
from ringfence.errors import AgentUnreachableError, Error, NotPermittedError
from ringfence.places import DEFAULT_SOCKET

__all__ = ["request", "subscribe"]

_TIMEOUT = 10.0
_ENDED = "the agent may have been stopped or replaced: run the command again"


def request(path: Path | None, op: str, **parameters: Any) -> Any:
    """Returns the result of one request. Raises AgentUnreachableError, or Error with the agent's message."""
    with _connect(path) as connection:
        return _ask(connection, connection.makefile("rb"), {"op": op, **parameters}).get("result")


def subscribe(path: Path | None, **parameters: Any) -> Iterator[dict[str, Any]]:
    """Yields the agent's records until there are no more.

    Raises AgentUnreachableError if the agent ends meanwhile, so that a follower does not mistake this for
    the end of the records.
    """
    with _connect(path) as connection:
        lines = connection.makefile("rb")
        _ask(connection, lines, {"op": "events", **parameters})
        connection.settimeout(None)
        try:
            for line in lines:
                yield json.loads(line)
        except (OSError, ValueError) as error:  # the agent was killed while it wrote a line
            raise AgentUnreachableError("the agent ended in the middle of a record", hint=_ENDED) from error
        if parameters.get("follow"):
            raise AgentUnreachableError("the agent ended the connection", hint=_ENDED)


def _connect(path: Path | None) -> socket.socket:
    if any(name.startswith("RINGFENCE_") and name != "RINGFENCE_SOCKET" for name in os.environ):
        check_variables()  # a misspelt name would ask another agent
    target = path or Path(os.environ.get("RINGFENCE_SOCKET") or DEFAULT_SOCKET)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_TIMEOUT)
    try:
        connection.connect(str(target))
    except PermissionError as error:
        connection.close()
        raise NotPermittedError(
            f"{target}: {error.strerror}", hint="only root may use the agent's socket: use sudo"
        ) from error
    except OSError as error:
        connection.close()
        raise AgentUnreachableError(
            f"no agent responds at {target}: {error.strerror or error}",
            hint="start an agent with `ringfence agent`, or give its socket with --socket",
        ) from error
    return connection


def _ask(connection: socket.socket, lines: Any, message: dict[str, Any]) -> dict[str, Any]:
    try:
        connection.sendall(json.dumps(message).encode() + b"\n")
        line = lines.readline()
        reply = json.loads(line) if line else None
    except (OSError, ValueError) as error:
        raise AgentUnreachableError(f"the agent did not respond: {error}") from error
    if not isinstance(reply, dict):
        raise AgentUnreachableError("the agent closed the connection")
    if not reply.get("ok"):
        raise Error(str(reply.get("error")), hint=str(reply.get("hint") or ""))
    return reply
