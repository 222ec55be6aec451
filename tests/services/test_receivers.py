# SPDX-License-Identifier: Apache-2.0
"""Alerts reach real receivers: Alertmanager, rsyslog by udp, tcp and a Unix socket."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ringfence.config import Config, load
from ringfence.export.sinks.outbox import Outbox, outbox_of
from tests.support import force
from tests.support.agent import free_port
from tests.support.receivers import alert
from tests.support.waiting import patience, wait_for


@contextlib.contextmanager
def program(argv: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a daemon of another project during a `with` block."""
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(patience(60))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def outbox(directory: Path, **flags: str) -> Iterator[Outbox]:
    """Queues and senders as in the agent."""
    words = {key.replace("_", ".", 1): [value] for key, value in flags.items()}
    directory.mkdir(exist_ok=True)
    words["alerts.queue_dir"] = [str(directory / "queue")]
    empty = directory / "agent.yaml"
    empty.write_text("{}\n")
    config: Config = load(empty, {}, words)
    made = outbox_of(config, lambda name, text: None)
    made.start()
    try:
        yield made
    finally:
        made.close()


def has_sent_one(made: Outbox) -> bool:
    """Whether its first receiver has taken one alert."""
    return made.senders[0].sent == 1


def get(url: str) -> Any:
    """A JSON document; None while nobody answers."""
    with contextlib.suppress(OSError, ValueError):
        with urllib.request.urlopen(url, timeout=patience(2)) as answer:
            return json.loads(answer.read())
    return None


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[str]:
    """Its address. Alone: no cluster, a receiver that does nothing."""
    binary = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    if binary is None:
        force.missing("alertmanager", "needs the program prometheus-alertmanager")
    config = tmp_path / "am.yml"
    config.write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    port = free_port()
    argv = [
        binary, f"--config.file={config}", f"--storage.path={tmp_path}/am", "--cluster.listen-address=",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with program(argv, tmp_path / "am.log"):
        wait_for(lambda: get(f"http://127.0.0.1:{port}/api/v2/status"), "Alertmanager")
        yield f"http://127.0.0.1:{port}"


def test_alertmanager_takes_and_shows_an_alert(tmp_path: Path, alertmanager: str) -> None:
    """Its own API gives it back as active, with the labels that routes match on; equal ones are one."""
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
    with outbox(tmp_path, alerts_alertmanager=alertmanager) as made:
        for number in range(3):
            made.put(alert(number, time=now))
        made.put(alert(9, time=now, rule={"id": "other", "title": "another", "attack": ["T1068"]}))
        wait_for(lambda: sum(sender.sent for sender in made.senders) == 4, "four alerts")
        assert not any(count for _, _, count in made.lost_by_reason())
    found = {one["labels"]["rule"]: one for one in get(alertmanager + "/api/v2/alerts?active=true")}
    assert set(found) == {"core-pattern", "other"}
    assert found["core-pattern"]["labels"]["pod"] == "web-0"
    assert found["core-pattern"]["annotations"]["allow"] == "add to rule core-pattern"
    assert found["core-pattern"]["status"]["state"] == "active"


def test_an_alert_that_waited_is_still_active(tmp_path: Path, alertmanager: str) -> None:
    """Its time is hours ago: Alertmanager must not treat it as resolved."""
    with outbox(tmp_path, alerts_alertmanager=alertmanager) as made:
        made.put(alert(time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 7200))))
        wait_for(partial(has_sent_one, made), "the alert")
    [one] = get(alertmanager + "/api/v2/alerts?active=true")
    assert one["status"]["state"] == "active"


RSYSLOG = """
global(workDirectory="{dir}" maxMessageSize="64k")
module(load="imudp")
module(load="imtcp")
module(load="imuxsock" SysSock.Use="off")
template(name="parsed" type="list" option.jsonf="on") {{
  property(outname="app" name="app-name" format="jsonf")
  property(outname="host" name="hostname" format="jsonf")
  property(outname="msgid" name="msgid" format="jsonf")
  property(outname="severity" name="syslogseverity" format="jsonf")
  property(outname="facility" name="syslogfacility" format="jsonf")
  property(outname="data" name="structured-data" format="jsonf")
  property(outname="msg" name="msg" format="jsonf")
}}
input(type="imudp" address="127.0.0.1" port="{port}")
input(type="imtcp" address="127.0.0.1" port="{port}")
input(type="imuxsock" Socket="{dir}/log" CreatePath="off" UseSpecialParser="off" ParseHostname="on")
action(type="omfile" file="{dir}/out" template="parsed")
"""


@pytest.fixture
def rsyslog() -> Iterator[tuple[Path, int]]:
    """Its directory and its port, for udp and tcp."""
    force.need_program("rsyslogd")
    with tempfile.TemporaryDirectory(prefix="rftest-", dir="/tmp") as name:
        directory, port = Path(name), free_port()
        (directory / "conf").write_text(RSYSLOG.format(dir=directory, port=port))
        argv = ["rsyslogd", "-n", "-f", f"{directory}/conf", "-i", f"{directory}/pid"]
        with program(argv, directory / "rsyslog.log"):
            wait_for((directory / "log").exists, "rsyslog's socket")
            yield directory, port


@pytest.mark.parametrize("scheme", ["udp", "tcp", "unix"])
def test_rsyslog_parses_what_it_gets(tmp_path: Path, rsyslog: tuple[Path, int], scheme: str) -> None:
    """Header, structured data and message arrive as they were meant; the message is the alert itself."""
    directory, port = rsyslog
    address = f"unix://{directory}/log" if scheme == "unix" else f"{scheme}://127.0.0.1:{port}"
    with outbox(tmp_path, alerts_syslog=address, alerts_syslog_enterprise="64999") as made:
        for number in range(20):
            made.put(alert(number))
        wait_for(lambda: made.senders[0].sent == 20, "twenty messages")

    def written() -> list[dict[str, str]]:
        out = directory / "out"
        lines = out.read_text().splitlines() if out.exists() else []
        return [json.loads(line) for line in lines] if len(lines) >= 20 else []

    lines = wait_for(written, "rsyslog to write")
    assert [json.loads(line["msg"])["id"] for line in lines] == [f"ab12cd-{n:x}" for n in range(20)]
    first = lines[0]
    assert (first["app"], first["host"], first["msgid"]) == ("ringfence", "node-1", "core-pattern")
    assert (first["severity"], first["facility"]) == ("2", "13")
    assert 'outcome="denied"' in first["data"]
    assert 'pod="web-0"' in first["data"]


def test_an_alert_beyond_a_datagram_arrives_as_its_headline(
    tmp_path: Path, rsyslog: tuple[Path, int]
) -> None:
    """More than 8 KiB by udp: no truncated JSON, but structured data with the main facts; by tcp complete."""
    directory, port = rsyslog
    big = alert(7, notes=["x" * 9000])
    for scheme in ("udp", "tcp"):
        address = f"{scheme}://127.0.0.1:{port}"
        with outbox(tmp_path / scheme, alerts_syslog=address, alerts_syslog_enterprise="64999") as made:
            made.put(big)
            wait_for(partial(has_sent_one, made), "the message")

    def written() -> list[dict[str, str]]:
        out = directory / "out"
        lines = out.read_text().splitlines() if out.exists() else []
        return [json.loads(line) for line in lines] if len(lines) >= 2 else []

    by_udp, by_tcp = sorted(wait_for(written, "rsyslog to write"), key=lambda one: len(one["msg"]))
    assert by_udp["msg"].endswith("/bin/busybox in shop/web-0/web: denied")
    assert 'id="ab12cd-7"' in by_udp["data"]
    assert json.loads(by_tcp["msg"])["notes"] == big["notes"]
