# SPDX-License-Identifier: Apache-2.0
"""Names with escape codes in every output: nothing that a container chose reaches a terminal, a log or a
receiver as a control character, nor as text that becomes one when it is decoded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence.abi import EventKind
from ringfence.cli.events import compact
from ringfence.containers.model import Container, Posture, SensitiveMount
from ringfence.containers.tree import ProcessTree
from ringfence.events import ExecEvent, SyscallEvent
from ringfence.export.jsonl import line_of
from ringfence.export.page import PageServer
from ringfence.export.records import alert_record, finding_record
from ringfence.export.redact import Redactor
from ringfence.export.sinks.chat import Slack, Teams
from ringfence.export.sinks.formats import FORMATS
from ringfence.export.sinks.http import Http, HttpSettings
from ringfence.export.sinks.local import RotatedFile, syslog_line
from ringfence.export.sinks.native import headline
from ringfence.export.sinks.web import Alertmanager, Otlp, Webhook
from ringfence.response.alert import assemble
from ringfence.response.detectors import finding
from ringfence.wire import make
from tests.support.receivers import http_receiver
from tests.unit.export.test_page import ask, server
from tests.unit.response.test_alert import rule_of

__all__ = ["server"]

Record = dict[str, Any]
EVIL = "a\x1b]0;owned\x07\x1b[2J\r\nb\x00\x7f\x9b31m\u202egnp\u2028c\udcff"
PROGRAM = EVIL.replace("\0", "").encode("utf-8", "surrogateescape")
#: the line's own end, and what lays a document out
LAYOUT = {"\n"}


def harmful(text: str) -> set[str]:
    """Returns the characters that a terminal or a viewer obeys."""
    return {letter for letter in text if not letter.isprintable()} - LAYOUT


def texts(value: Any) -> Iterator[str]:
    """Every text of a decoded document, keys included."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield str(key)
            yield from texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from texts(one)
    elif isinstance(value, str):
        yield value


def check(document: Any) -> None:
    """No text of it has a control character, and the name is there: escaped, not removed."""
    assert not {letter for text in texts(document) for letter in harmful(text)}
    assert any(r"\x1b]0;owned" in text or r"\x1b[2J" in text for text in texts(document))


def records() -> list[Record]:
    """A verdict, a finding and a call with strings, of a container that chose everything that it could."""
    mount = SensitiveMount("host-etc", EVIL, EVIL, writable=True)
    container = Container(
        EVIL, 7, 1, runtime=EVIL, name=EVIL, image=EVIL, image_digest=EVIL, namespace=EVIL, pod=EVIL,
        pod_uid=EVIL, owner=EVIL, labels={EVIL: EVIL},
        posture=Posture(("CAP_BPF",), seccomp=EVIL, sensitive_mounts=(mount,), score=5, reasons=(EVIL,)),
    )  # fmt: skip
    raw = EVIL.encode("utf-8", "surrogateescape")
    event = SyscallEvent(event=EventKind.SYS_UNSHARE, operand0=0x10000000, pid=11, start_ns=2, ppid=10,
                         comm_raw=raw[:15])  # fmt: skip
    processes = ProcessTree()
    for pid, ppid in ((10, 9), (11, 10)):
        processes.on_event(
            ExecEvent(
                event=EventKind.PROCESS_EXEC, pid=pid, start_ns=pid - 9, ppid=ppid, comm_raw=raw[:15],
                path_raw=PROGRAM + b"\0", path_len=len(PROGRAM), args_raw=PROGRAM, args_len=len(PROGRAM),
            )
        )  # fmt: skip
    made = assemble(event, container, rule_of("unshare"), processes, "node-1", suppressed=1)
    found = finding("sweep", container, {EVIL: EVIL, "list": [raw]}, event)
    strings = make(EventKind.SYS_MOUNT, text=raw[:255], second=raw[:255], third=raw[:255])
    call = assemble(strings, container, None, processes, "node-1")
    written = alert_record(made, 0, 0), finding_record(found, "node-1", 0), alert_record(call, 0, 0)
    return [Redactor(()).record(one) for one in written]


@pytest.mark.parametrize("record", records(), ids=["alert", "finding", "strings"])
class TestOutputs:
    """Each way out, with the same records."""

    def test_lines(self, record: Record) -> None:
        """One line of UTF-8 each, as written and as decoded."""
        line = line_of(record).decode()
        assert line.count("\n") == 1
        assert not harmful(line)
        check(json.loads(line))

    def test_events_and_headline(self, record: Record) -> None:
        """`ringfence events`, and what chats and datagrams show."""
        for text in (compact(record), headline(record)):
            assert text.isprintable()

    @pytest.mark.parametrize("name", sorted(FORMATS))
    def test_formats_syslog_and_file(self, record: Record, name: str, tmp_path: Path) -> None:
        """Whole, shortened to a datagram, and with structured data."""
        for size in (0, 600):
            message = syslog_line(record, FORMATS[name], size, enterprise=64999)
            assert all(0x20 <= byte < 0x7F for byte in message)
        check(FORMATS[name](record))
        path = tmp_path / "alerts.json"
        RotatedFile("file", path, FORMATS[name], 1 << 20, 1).send([record])
        (line,) = path.read_bytes().decode().splitlines()
        check(json.loads(line))

    @pytest.mark.parametrize(
        "make",
        [
            lambda http: Webhook("webhook", http, FORMATS["native"]),
            lambda http: Alertmanager("alertmanager", http),
            lambda http: Otlp("otlp", http),
            lambda http: Slack("slack", http),
            lambda http: Teams("teams", http),
        ],
        ids=["webhook", "alertmanager", "otlp", "slack", "teams"],
    )
    def test_receivers(self, record: Record, make: Callable[[Http], Any]) -> None:
        """What the other side has once it has decoded the request."""
        with http_receiver() as receiver:
            make(Http(receiver.url, HttpSettings())).send([record])
        check(receiver.bodies[0])


def test_the_status_page(server: PageServer) -> None:
    """Its documents are the records; tests/services/test_page_look.py shows them in a browser."""
    server._recent = lambda kind, most: records()
    body = ask(server, "/api/alerts").read().decode()
    assert not harmful(body)
    check(json.loads(body))
