# SPDX-License-Identifier: Apache-2.0
"""The data for each receiver: Alertmanager and OpenTelemetry requests, syslog frames, a rotated file."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import threading
from datetime import datetime
from pathlib import Path

import pytest

from ringfence import __version__
from ringfence.export.sinks import local
from ringfence.export.sinks.http import Http, HttpSettings
from ringfence.export.sinks.local import RotatedFile, Syslog, syslog_line
from ringfence.export.sinks.sender import Sender, Unavailable
from ringfence.export.sinks.spool import Spool
from ringfence.export.sinks.web import Alertmanager, Otlp
from tests.support.receivers import alert, http_receiver, whole_alert
from tests.support.waiting import wait_for

#: RFC 5424, section 6: HEADER SP STRUCTURED-DATA [SP MSG]
SYSLOG = re.compile(
    rb"<(?P<pri>\d{1,3})>1 (?P<time>\S+) (?P<host>[\x21-\x7e]{1,255}) (?P<app>[\x21-\x7e]{1,48}) "
    rb"(?P<pid>[\x21-\x7e]{1,128}) (?P<id>[\x21-\x7e]{1,32}) "
    rb'(?P<data>-|(?:\[(?:[^\]\\"]|\\.|"(?:[^"\\\]]|\\.)*")+\])+)'
    rb" (?P<text>.*)"
)


def test_alertmanager_gets_labels_that_group_and_annotations_that_explain() -> None:
    """Labels identify the alert and do not change each time; the end is in the future."""
    now = 1_800_000_000.0
    with http_receiver() as server:
        Alertmanager("am", Http(server.url, HttpSettings()), lambda: now).send([alert(1), alert(2)])
    [first, second] = server.bodies[0]
    assert first["labels"] == second["labels"]
    assert first["labels"] == {
        "alertname": "RingfenceCorePattern", "source": "ringfence-agent", "rule": "core-pattern",
        "severity": "warning", "rule_severity": "critical", "outcome": "denied",
        "mechanism": "lsm", "namespace": "shop", "pod": "web-0", "container": "web", "node": "node-1",
        "image": "registry.example:5000/shop/web:1.2",
    }  # fmt: skip
    assert first["annotations"]["attack"] == "T1611, T1055.001"
    assert first["annotations"]["policy"] == "/etc/ringfence/policies/kernel.yaml:12"
    assert first["annotations"]["allow"] == "add to rule core-pattern"
    assert first["annotations"]["ancestry"] == "/sbin/init"
    assert first["annotations"]["description"] == (
        "The call was denied before it took effect. Container shop/web-0/web."
    )
    assert first["annotations"]["runbook_url"].endswith("/docs/runbooks/escape-denied.md")
    assert first["generatorURL"] == first["annotations"]["runbook_url"]
    assert datetime.fromisoformat(first["endsAt"]).timestamp() > now


def test_otlp_is_a_logs_request() -> None:
    """opentelemetry-proto's JSON: 64-bit numbers are strings, names in camelCase, severity 21 is FATAL."""
    with http_receiver() as server:
        Otlp("otlp", Http(server.url, HttpSettings())).send([alert(1), alert(2, node="node-2")])
    resources = server.bodies[0]["resourceLogs"]
    assert len(resources) == 2
    [log] = resources[0]["scopeLogs"][0]["logRecords"]
    assert log["timeUnixNano"] == "1795485784123456000"
    assert log["severityNumber"] == 21
    found = {one["key"]: one["value"] for one in log["attributes"]}
    assert found["k8s.pod.name"] == {"stringValue": "web-0"}
    assert found["process.pid"] == {"intValue": "4242"}
    assert found["ringfence.rule.attack"]["arrayValue"]["values"][0] == {"stringValue": "T1611"}


def test_otlp_is_what_opentelemetrys_own_code_reads() -> None:
    """opentelemetry-proto parses the request, knows every field of it, and finds the alert whole."""
    from google.protobuf import json_format
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    with http_receiver() as server:
        Otlp("otlp", Http(server.url, HttpSettings())).send([whole_alert(), alert(2, node="node-2")])
    request = json_format.ParseDict(server.bodies[0], ExportLogsServiceRequest())
    first, second = request.resource_logs
    [log] = first.scope_logs[0].log_records
    assert first.schema_url == first.scope_logs[0].schema_url == "https://opentelemetry.io/schemas/1.44.0"
    assert log.time_unix_nano == 1795485784123456000
    assert log.event_name == "ringfence.alert"
    assert log.severity_number == 21  # SEVERITY_NUMBER_FATAL
    assert json.loads(log.body.string_value) == whole_alert()
    resource = {one.key: one.value.string_value for one in first.resource.attributes}
    assert resource == {"service.name": "ringfence", "host.name": "node-1", "k8s.node.name": "node-1",
                        "k8s.cluster.name": "prod-eu"}  # fmt: skip
    found = {one.key: one.value for one in log.attributes}
    assert found["container.image.name"].string_value == "registry.example:5000/shop/web"
    assert found["container.image.tags"].array_value.values[0].string_value == "1.2"
    assert found["container.runtime.name"].string_value == "containerd"
    assert not {"event.name", "event.id", "container.runtime"} & set(found)
    assert found["process.pid"].int_value == 4242
    assert [one.string_value for one in found["process.command_args"].array_value.values] == [
        "sh",
        "-c",
        "echo x",
    ]
    assert second.resource.attributes[1].value.string_value == "node-2"


@pytest.mark.parametrize(("rejected", "sent", "refused"), [('"2"', 3, 2), ("9", 0, 5), ("0", 5, 0)])
def test_what_a_collector_rejects_is_counted_and_not_sent_again(
    tmp_path: Path, rejected: str, sent: int, refused: int
) -> None:
    """OTLP, "Partial Success": a collector that rejects a part answers 200, does not say which, and must not
    be asked again: the others would be there twice."""
    with http_receiver() as server:
        server.answer = (
            b'{"partialSuccess":{"rejectedLogRecords":%s,"errorMessage":"no"}}' % rejected.encode()
        )
        spool = Spool(tmp_path, 1 << 20)
        for number in range(5):
            spool.append(json.dumps(alert(number)).encode())
        sender = Sender(Otlp("otlp", Http(server.url, HttpSettings())), spool)
        sender.step(idle=0)
    assert server.requests == 1
    assert (sender.sent, sender.lost["refused"], spool.undelivered) == (sent, refused, 0)


def test_structured_data_needs_a_number_of_the_operator() -> None:
    """Without one, only the element that IANA registered for everybody (RFC 5424, 7.2)."""
    origin = f'[origin software="ringfence" swVersion="{__version__}"]'
    data = SYSLOG.fullmatch(syslog_line(alert(), dict))
    assert data is not None
    assert data["data"].decode() == origin
    data = SYSLOG.fullmatch(syslog_line(alert(), dict, enterprise=64999))
    assert data is not None
    assert data["data"].decode().startswith(f"{origin}[ringfence@64999 id=")


def test_a_syslog_message_is_as_the_rfc_says() -> None:
    """Facility 13 (log audit), severity 2 (critical); structured data with its quotes escaped."""
    hostile = alert(node='no de"]', rule={"id": 'a"b]c\\d', "title": "x"})
    for record in (alert(), hostile, alert(details={"path": "\u2028ü\n"})):
        match = SYSLOG.fullmatch(syslog_line(record, dict, enterprise=64999))
        assert match
        assert int(match["pri"]) == 13 * 8 + 2
        datetime.fromisoformat(match["time"].decode())
        assert match["text"].isascii()
    assert b'rule="a\\"b\\]c\\\\d"' in syslog_line(hostile, dict, enterprise=64999)


def test_a_datagram_that_would_be_too_long_becomes_its_headline() -> None:
    """Truncated JSON is invalid; the structured data still has the main facts."""
    line = syslog_line(alert(notes=["x" * 9000]), dict, 2048, enterprise=64999)
    assert len(line) <= 2048
    assert b'rule="core-pattern"' in line
    assert line.endswith(b"shop/web-0/web: denied")


def frames(data: bytes) -> list[bytes]:
    """RFC 6587, 3.4.1: MSG-LEN SP SYSLOG-MSG."""
    found = []
    while data:
        length, _, data = data.partition(b" ")
        found.append(data[: int(length)])
        data = data[int(length) :]
    return found


def test_tcp_messages_are_counted_octets() -> None:
    """For any content; the sender returns after everything was acknowledged."""
    got = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                while data := connection.recv(65536):
                    got.extend(data)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        syslog = Syslog("s", f"tcp://127.0.0.1:{server.getsockname()[1]}", dict, HttpSettings())
        syslog.send([alert(1), alert(2)])
        syslog.send([alert(3)])
        syslog.close()
        thread.join(5)
    assert [SYSLOG.fullmatch(frame) is not None for frame in frames(bytes(got))] == [True] * 3


def test_a_tcp_receiver_that_hung_up_is_called_again() -> None:
    """Nothing is written to a connection that the peer has closed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        syslog = Syslog("s", f"tcp://127.0.0.1:{server.getsockname()[1]}", dict, HttpSettings())
        thread = threading.Thread(target=lambda: syslog.send([alert(1)]), daemon=True)
        thread.start()
        first, _ = server.accept()
        assert first.recv(65536)
        thread.join(5)
        first.close()
        wait_for(lambda: syslog._socket is not None and syslog._socket.recv(1) == b"", "the end to arrive")
        thread = threading.Thread(target=lambda: syslog.send([alert(2)]), daemon=True)
        thread.start()
        second, _ = server.accept()
        assert frames(second.recv(65536))
        thread.join(5)
        second.close()
        syslog.close()


def test_a_tcp_receiver_that_does_not_read_is_away() -> None:
    """Its window fills, and the batch does not count as sent."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        syslog = Syslog("s", f"tcp://127.0.0.1:{server.getsockname()[1]}", dict, HttpSettings(timeout=0.3))
        with pytest.raises(Unavailable) as caught:
            syslog.send([alert(n, notes=["x" * 60000]) for n in range(400)])
        assert caught.value.reason == "timeout"


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_unix_socket_of_either_kind_is_used(tmp_path: Path, kind: socket.SocketKind) -> None:
    """/dev/log is the one or the other."""
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, kind) as server:
        server.bind(path)
        if kind is socket.SOCK_STREAM:
            server.listen()
        syslog = Syslog("s", f"unix://{path}", dict, HttpSettings())
        syslog.send([alert()])
        reader = server.accept()[0] if kind is socket.SOCK_STREAM else server
        data = reader.recv(65536)
        reader.close()
        syslog.close()
    assert SYSLOG.fullmatch(frames(data)[0] if kind is socket.SOCK_STREAM else data)


def test_a_connection_that_was_reset_is_not_taken_for_acknowledged() -> None:
    """Nothing is in flight any more, but nothing arrived."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        syslog = Syslog("s", f"tcp://127.0.0.1:{server.getsockname()[1]}", dict, HttpSettings())
        sock = syslog._connected()
        accepted, _ = server.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST at the close
        accepted.close()
        with pytest.raises(OSError):
            syslog._acknowledged(sock)
        syslog.close()


def test_datagrams_follow_a_name_to_its_new_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Datagrams into nowhere are not answered: the name is looked up again. While no name server answers, and
    while the address is one of the name's, they go where they went."""
    first, second = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    with first, second:
        first.bind(("127.0.0.1", 0))
        port = first.getsockname()[1]
        second.bind(("127.0.0.2", port))
        for sock in (first, second):
            sock.settimeout(5)
        answer: list[str] = ["127.0.0.1"]

        def look_up(host: str, port: int, **_: object) -> list[object]:
            if not answer:
                raise socket.gaierror(socket.EAI_AGAIN, "no name server")
            return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", (one, port)) for one in answer]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        monkeypatch.setattr(local, "_LOOK_UP_S", 0.0)
        syslog = Syslog("s", f"udp://siem.example:{port}", dict, HttpSettings())
        for answers, there in (
            (["127.0.0.1"], first),
            ([], first),
            (["127.0.0.2", "127.0.0.1"], first),
            (["127.0.0.2"], second),
        ):
            answer[:] = answers
            syslog.send([alert()])
            assert SYSLOG.fullmatch(there.recv(65536))
        syslog.close()


def test_a_missing_socket_is_a_receiver_that_is_away(tmp_path: Path) -> None:
    """Not an error of the agent."""
    with pytest.raises(Unavailable):
        Syslog("s", f"unix://{tmp_path}/none", dict, HttpSettings()).send([alert()])
    with pytest.raises(Unavailable):
        Syslog("s", "tcp://127.0.0.1:1", dict, HttpSettings(timeout=0.5)).send([alert()])


def test_a_file_is_rotated_by_size(tmp_path: Path) -> None:
    """The newest is in the file itself, the rest in .1 to .N, and no more than configured is kept."""
    path = tmp_path / "alerts"
    line = len(b'{"n":"00"}\n')
    file = RotatedFile("f", path, lambda record: {"n": record["n"]}, size=3 * line, keep=2)
    for number in range(10):
        file.send([{"n": f"{number:02}"}])
    assert path.read_text() == '{"n":"09"}\n'
    assert Path(f"{path}.1").read_text() == '{"n":"06"}\n{"n":"07"}\n{"n":"08"}\n'
    assert Path(f"{path}.2").read_text() == '{"n":"03"}\n{"n":"04"}\n{"n":"05"}\n'
    assert sorted(os.listdir(tmp_path)) == ["alerts", "alerts.1", "alerts.2"]
    assert path.stat().st_mode & 0o007 == 0


def test_a_line_that_a_power_cut_tore_does_not_spoil_the_next(tmp_path: Path) -> None:
    """It was not settled, so it is written again, on its own line."""
    path = tmp_path / "a"
    path.write_bytes(b'{"n":1}\n{"n":')
    file = RotatedFile("f", path, dict, size=1 << 20, keep=1)
    file.send([{"n": 2}])
    file.send([{"n": 3}])
    assert path.read_bytes() == b'{"n":1}\n{"n":\n{"n":2}\n{"n":3}\n'


def test_a_file_without_rotated_ones_is_begun_anew(tmp_path: Path) -> None:
    """keep 0."""
    file = RotatedFile("f", tmp_path / "a", dict, size=10, keep=0)
    file.send([{"n": 1}])
    file.send([{"n": 2}])
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == '{"n":2}\n'


def test_a_full_disk_is_a_receiver_that_is_away() -> None:
    """/dev/full; the alerts stay in the queue (which lies elsewhere)."""
    with pytest.raises(Unavailable) as caught:
        RotatedFile("f", Path("/dev/full"), dict, size=1 << 20, keep=1).send([alert()])
    assert caught.value.reason == "disk_full"
