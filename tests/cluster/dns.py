# SPDX-License-Identifier: Apache-2.0
"""`python3 -m tests.cluster.dns ADDRESS KUBECTL...`: names of services for pods, in place of
CoreDNS.

One question per datagram (RFC 1035): A records of NAME.NAMESPACE.svc[.cluster.local] are the
addresses of the service's endpoints, from `kubectl get endpoints`; the chart has a headless
service. Any other name does not exist.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys

_A, _IN = 1, 1
_NO_SUCH_NAME = 3


def main() -> int:
    """Answer for ever."""
    address, kubectl = sys.argv[1], sys.argv[2:]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        while True:
            question, client = server.recvfrom(512)
            server.sendto(answer(question, kubectl), client)


def answer(question: bytes, kubectl: list[str]) -> bytes:
    """Returns the reply to one question."""
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode("ascii", "replace"))
        at += 1 + question[at]
    kind = struct.unpack_from("!H", question, at + 1)[0]
    asked = question[12 : at + 5]
    service = (
        len(labels) in (3, 5)
        and labels[2] == "svc"
        and (len(labels) == 3 or labels[3:] == ["cluster", "local"])
    )
    found = addresses(labels[0], labels[1], kubectl) if service else None
    records = found if found and kind == _A else []
    code = 0 if found is not None else _NO_SUCH_NAME
    head = struct.pack("!2sHHHHH", question[:2], 0x8580 | code, 1, len(records), 0, 0)
    body = (struct.pack("!HHHIH", 0xC00C, _A, _IN, 1, 4) + socket.inet_aton(one) for one in records)
    return head + asked + b"".join(body)


def addresses(name: str, namespace: str, kubectl: list[str]) -> list[str] | None:
    """Returns the addresses of the endpoints; None if there is no such service."""
    argv = [*kubectl, "--namespace", namespace, "get", "endpoints", name, "--output", "json"]
    done = subprocess.run(argv, capture_output=True, check=False)
    if done.returncode:
        return None
    subsets = json.loads(done.stdout).get("subsets") or []
    return [one["ip"] for subset in subsets for one in subset.get("addresses") or []]


if __name__ == "__main__":
    sys.exit(main())
