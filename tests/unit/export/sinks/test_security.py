# SPDX-License-Identifier: Apache-2.0
"""Security of receivers: headers, certificates, labels, and trusted authorities."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest

from ringfence.config import Config, load
from ringfence.errors import ConfigError
from ringfence.export.sinks.http import Http, HttpSettings
from ringfence.export.sinks.local import Syslog
from ringfence.export.sinks.receivers import receivers_of
from ringfence.export.sinks.sender import Unavailable
from ringfence.export.sinks.web import Alertmanager, Otlp
from tests.support.receivers import alert, http_receiver, whole_alert
from tests.support.tls import Authority
from tests.support.waiting import wait_for
from tests.unit.export.sinks.test_receivers import SYSLOG, frames


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The authority that signed the receivers' certificates."""
    return Authority(tmp_path)


def config(directory: Path, text: str) -> Config:
    """An agent's configuration file."""
    path = directory / "agent.yaml"
    path.write_text(text)
    return load(path, {})


def test_each_receiver_gets_its_own_headers_and_no_others(tmp_path: Path) -> None:
    """A token must be sent to one host only."""
    (tmp_path / "one").write_text("Authorization: Bearer one\n")
    (tmp_path / "two").write_text("Authorization: Bearer two\n")
    with http_receiver() as first, http_receiver() as second, http_receiver() as third:
        text = f"""
alerts:
  headers: {tmp_path}/one
  webhook:
    - {first.url}
    - {{url: "{second.url}", headers: {tmp_path}/two}}
    - {{url: "{third.url}", headers: off}}
"""
        for receiver in receivers_of(config(tmp_path, text)):
            receiver.send([alert()])
        found = [one.headers[0].get("Authorization") for one in (first, second, third)]
    assert found == ["Bearer one", "Bearer two", None]


def test_shared_headers_are_not_shown_to_several_hosts(tmp_path: Path) -> None:
    """The configuration is rejected, with the hosts and a remedy."""
    text = "alerts: {headers: /h, webhook: ['https://a/x'], alertmanager: ['https://b:9093']}\n"
    with pytest.raises(ConfigError, match=r"alerts\.headers: would be sent to a, b:9093: set `headers`"):
        config(tmp_path, text)
    config(tmp_path, "alerts: {headers: /h, webhook: ['https://a/x', 'https://a/y']}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("webhook: [{url: 'http://h', token: /x}]", "'token' is not an option"),
        ("webhook: [{headers: /x}]", "a receiver is a URL, or has `url`"),
        ("webhook: [{url: 'http://h', headers: x}]", "not an absolute path"),
        ("webhook: [{url: 'http://h', key: /x}]", "`key` requires `certificate`"),
        ("webhook: [{url: 'http://h', ca: /x}, 'http://h']", "given twice"),
        ("webhook: ['http://h headers']", "is neither URL nor URL OPTION=PATH"),
        ("webhook: [[a]]", "expected a list of receivers"),
        ("webhook: [{url: [a]}]", "expected a URL"),
        ("syslog: [{url: 'tls://h', headers: /x}]", "'headers' is not an option"),
        ("syslog: [{url: [a]}]", "is not udp://"),
        ("syslog: ['tls://h/x']", "is not udp://"),
        ("labels: {node: x}", "alerts already have this label"),
        ("labels: {a-b: x}", "is not a valid label name"),
        ("labels: {a: ''}", "one line of 1 to 128"),
        ("labels: {a: {b: c}}", "one line of 1 to 128"),
        ("labels: [a]", "is not NAME=VALUE"),
    ],
)
def test_mistakes_in_receivers_have_a_place(tmp_path: Path, text: str, message: str) -> None:
    """Found when the file is read, not when the first alert is sent."""
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, f"alerts:\n  {text}\n")
    assert message in caught.value.message
    assert caught.value.message.startswith(f"{tmp_path}/agent.yaml:2:")


def test_a_receiver_can_be_written_in_one_word() -> None:
    """As a flag or in a variable."""
    words = ["https://h/x headers=/h ca=/c certificate=/p key=/k", "https://i/"]
    first, second = load(None, {}, {"alerts.webhook": words}).alerts_webhook
    assert first == ("https://h/x", Path("/h"), Path("/c"), Path("/p"), Path("/k"))
    assert second == ("https://i/", "shared", "shared", "shared", None)


def test_receivers_are_believed_by_their_own_authority(authority: Authority, tmp_path: Path) -> None:
    """alerts.ca for all, or a receiver's own; the system's authorities are not trusted."""
    other = Authority(tmp_path, "other")
    with (
        http_receiver(certificate=authority.issue()) as first,
        http_receiver(certificate=other.issue()) as second,
    ):
        text = f"""
alerts:
  ca: {authority.path}
  webhook: [{first.url}]
  otlp: [{{url: "{second.url}", ca: {other.path}}}]
"""
        for receiver in receivers_of(config(tmp_path, text)):
            receiver.send([alert()])
        with pytest.raises(Unavailable, match="not trusted"):
            Http(second.url, HttpSettings(ca=authority.path)).post(b"{}")
        with pytest.raises(Unavailable, match="not trusted"):
            Http(first.url, HttpSettings()).post(b"{}")
        assert (first.requests, second.requests) == (1, 1)


@pytest.mark.parametrize("names", [["DNS:hooks.example"], ["IP:192.0.2.1"]])
def test_a_receiver_under_another_name_is_not_believed(authority: Authority, names: list[str]) -> None:
    """Its certificate is valid, but not for this address."""
    with http_receiver(certificate=authority.issue(names)) as receiver:
        with pytest.raises(Unavailable, match=r"not trusted.*mismatch"):
            Http(receiver.url, HttpSettings(ca=authority.path)).post(b"{}")
        assert receiver.requests == 0


def test_a_receiver_whose_certificate_is_over_is_away(authority: Authority) -> None:
    """Alerts wait until it has a new certificate."""
    with http_receiver(certificate=authority.issue(days=-1)) as receiver:
        with pytest.raises(Unavailable, match="expired"):
            Http(receiver.url, HttpSettings(ca=authority.path)).post(b"{}")


def test_a_missing_authority_is_reported_and_nothing_is_sent(authority: Authority, tmp_path: Path) -> None:
    """The file may come later: the receiver counts as away."""
    with http_receiver(certificate=authority.issue()) as receiver:
        with pytest.raises(Unavailable, match=r"none\.crt"):
            Http(receiver.url, HttpSettings(ca=tmp_path / "none.crt")).post(b"{}")
        assert receiver.requests == 0


def test_a_receiver_that_requires_a_certificate_gets_one(authority: Authority, tmp_path: Path) -> None:
    """Certificate and key in one file, or in two; alerts.certificate for all."""
    mine = authority.issue(["DNS:agent"], label="agent")
    key = tmp_path / "authority-agent.key"
    with http_receiver(certificate=authority.issue(), clients=authority.path) as receiver:
        for options in (f"certificate: {mine}", f"certificate: {mine}, key: {key}"):
            text = f'alerts: {{ca: {authority.path}, webhook: [{{url: "{receiver.url}", {options}}}]}}\n'
            [made] = receivers_of(config(tmp_path, text))
            made.send([alert()])
        shared = f'alerts: {{ca: {authority.path}, certificate: {mine}, webhook: ["{receiver.url}"]}}\n'
        [made] = receivers_of(config(tmp_path, shared))
        made.send([alert()])
        with pytest.raises(Unavailable):
            Http(receiver.url, HttpSettings(ca=authority.path)).post(b"{}")
        assert receiver.requests == 3


class TlsServer:
    """A syslog receiver with TLS: what each of its connections brought."""

    def __init__(self, certificate: Path) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.got: list[bytearray] = []
        self.connections: list[ssl.SSLSocket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self.server.accept()
                connection = self.context.wrap_socket(raw, server_side=True)
            except OSError:
                if self.server.fileno() < 0:
                    return
                continue
            self.connections.append(connection)
            self.got.append(bytearray())
            threading.Thread(target=self._read, args=(connection, self.got[-1]), daemon=True).start()

    @staticmethod
    def _read(connection: ssl.SSLSocket, got: bytearray) -> None:
        try:
            while data := connection.recv(65536):
                got.extend(data)
        except OSError:
            pass

    def close(self) -> None:
        """All of it."""
        self.server.close()
        for connection in self.connections:
            connection.close()


def test_syslog_by_tls_is_framed_and_its_server_believed(authority: Authority) -> None:
    """RFC 5425: octet counting. What TLS itself says in between (tickets) is no end of the connection."""
    server = TlsServer(authority.issue())
    syslog = Syslog("s", f"tls://127.0.0.1:{server.port}", dict, HttpSettings(ca=authority.path))
    syslog.send([alert(1), alert(2)])
    syslog.send([alert(3)])
    wait_for(lambda: server.got and len(frames(bytes(server.got[0]))) == 3, "three messages")
    assert len(server.got) == 1, "one connection"
    assert all(SYSLOG.fullmatch(frame) for frame in frames(bytes(server.got[0])))
    syslog.close()
    server.close()


def test_a_syslog_receiver_that_ended_its_tls_is_called_again(authority: Authority) -> None:
    """Nothing is written into a connection that is over."""
    server = TlsServer(authority.issue())
    syslog = Syslog("s", f"tls://127.0.0.1:{server.port}", dict, HttpSettings(ca=authority.path))
    syslog.send([alert(1)])
    wait_for(lambda: server.got and frames(bytes(server.got[0])), "the first message")
    server.connections[0].shutdown(socket.SHUT_RDWR)
    server.connections[0].close()
    wait_for(lambda: has_ended(syslog), "the end to arrive")
    syslog.send([alert(2)])
    wait_for(lambda: len(server.got) == 2 and frames(bytes(server.got[1])), "the second message")
    syslog.close()
    server.close()


def has_ended(syslog: Syslog) -> bool:
    """Has the other side's FIN come? (State 8 of tcp(7)'s struct tcp_info: CLOSE_WAIT.)"""
    sock: Any = syslog._socket
    return bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 8)


def test_a_syslog_receiver_of_another_authority_is_away(authority: Authority, tmp_path: Path) -> None:
    """Nothing is sent."""
    server = TlsServer(Authority(tmp_path, "stranger").issue())
    with pytest.raises(Unavailable, match="not trusted"):
        Syslog("s", f"tls://127.0.0.1:{server.port}", dict, HttpSettings(ca=authority.path)).send([alert()])
    server.close()


def test_labels_of_the_agent_reach_every_receiver() -> None:
    """As labels of Alertmanager, and of the resource for OpenTelemetry, the cluster by its name there."""
    with http_receiver() as server:
        Alertmanager("am", Http(server.url, HttpSettings())).send([whole_alert()])
        Otlp("otlp", Http(server.url, HttpSettings())).send([whole_alert()])
    assert server.bodies[0][0]["labels"]["cluster"] == "prod-eu"
    attributes = server.bodies[1]["resourceLogs"][0]["resource"]["attributes"]
    assert {"key": "k8s.cluster.name", "value": {"stringValue": "prod-eu"}} in attributes
