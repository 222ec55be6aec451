# SPDX-License-Identifier: Apache-2.0
"""Where records go: lines at once, receivers when the container has its names, secrets nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ringfence.config import load
from ringfence.containers.model import Container, Enrichment, Facts
from ringfence.daemon.delivery.outputs import NoOutbox, Outlets, limiter_of, open_outbox
from ringfence.export.sinks.outbox import Outbox
from ringfence.export.sinks.receivers import receivers_of
from ringfence.export.sinks.sender import Sender
from ringfence.export.sinks.spool import Spool
from tests.support.receivers import alert

BORN = Container("c" * 64, 77, 3)
NAMED = BORN.enriched(Facts(Enrichment.DONE, name="web", namespace="shop", pod="web-0"))


class World:
    """Outlets with a clock that the test moves."""

    def __init__(self, directory: Path, **words: str) -> None:
        empty = directory / "agent.yaml"
        empty.write_text("{}\n")
        self.now = 100.0
        self.shown: list[Mapping[str, Any]] = []
        self.sent: list[Mapping[str, Any]] = []
        flags = {key.replace("_", ".", 1): [value] for key, value in words.items()}
        self.outlets = Outlets(
            load(empty, {}, flags), self.shown.append, self.sent.append, clock=lambda: self.now
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    """The default: two seconds of waiting."""
    return World(tmp_path)


def test_the_first_alert_of_a_short_pod_arrives_with_its_name(world: World) -> None:
    """The line is out at once; the receiver gets the alert when the names are there, and the line is
    amended."""
    world.outlets.emit(alert(container={"id": "c" * 64}), BORN)
    assert len(world.shown) == 1
    assert not world.sent
    world.outlets.identified(NAMED)
    [sent] = world.sent
    assert (sent["container"]["pod"], sent["container"]["namespace"]) == ("web-0", "shop")
    assert sent["id"] == "ab12cd-1"
    amended = world.shown[1]
    assert (amended["kind"], amended["alerts"]) == ("identity", ["ab12cd-1"])
    assert amended["container"]["pod"] == "web-0"
    assert world.outlets.waiting == 0


def test_nobody_waits_for_ever(world: World) -> None:
    """After the time it leaves as it is."""
    world.outlets.emit(alert(1), BORN)
    world.now += 1
    world.outlets.emit(alert(2), BORN)
    world.outlets.tick()
    assert not world.sent
    world.now += 1.5
    world.outlets.tick()
    assert [record["id"] for record in world.sent] == ["ab12cd-1"]
    world.outlets.flush()
    assert [record["id"] for record in world.sent] == ["ab12cd-1", "ab12cd-2"]
    assert world.outlets.waiting == 0


def test_a_container_that_nobody_knows_is_not_waited_for_longer(world: World) -> None:
    """The runtimes were asked, and none knew it: there is nothing to amend."""
    world.outlets.emit(alert(), BORN)
    world.outlets.identified(BORN.enriched(Facts(Enrichment.PENDING)))
    assert not world.sent
    world.outlets.identified(BORN.enriched(Facts(Enrichment.NONE)))
    assert len(world.sent) == 1
    assert len(world.shown) == 1


def test_what_is_known_leaves_at_once(world: World) -> None:
    """A named container, and an alert of the host's own."""
    world.outlets.emit(alert(1), NAMED)
    world.outlets.emit(alert(2), None)
    assert len(world.sent) == 2


def test_a_repetition_that_is_told_late_has_the_names_of_by_now(world: World) -> None:
    """It was held back while nobody knew the container, and is told when somebody does."""
    world.outlets.find = {BORN.cgroup_id: NAMED}.get
    world.outlets.emit(alert(container={"id": "c" * 64}), BORN)
    assert [record["container"]["pod"] for record in (*world.shown, *world.sent)] == ["web-0", "web-0"]
    assert world.outlets.waiting == 0


def test_waiting_can_be_turned_off(tmp_path: Path) -> None:
    """identity_wait 0."""
    world = World(tmp_path, alerts_identity_wait="0")
    world.outlets.emit(alert(), BORN)
    assert len(world.sent) == 1


def test_only_alerts_leave_the_node(world: World) -> None:
    """The life of containers is for the lines."""
    world.outlets.emit({"kind": "lifecycle", "event": "container.start"}, NAMED)
    assert len(world.shown) == 1
    assert not world.sent


def test_secrets_are_hidden_in_lines_and_alerts_and_names(world: World) -> None:
    """Also in labels that come with the names."""
    record = alert()
    record["process"]["args"] = ["app", "--password", "hunter2"]
    world.outlets.emit(record, BORN)
    labels = {"token": "hunter2", "app": "web"}
    world.outlets.identified(BORN.enriched(Facts(Enrichment.DONE, name="web", labels=labels)))
    assert "hunter2" not in str(world.shown) + str(world.sent)
    assert world.sent[0]["container"]["labels"]["app"] == "web"


def test_alerts_carry_the_labels_of_the_agent(tmp_path: Path) -> None:
    """Lines and receivers alike, held or not; other records do not."""
    world = World(tmp_path, alerts_labels="cluster=prod")
    world.outlets.emit(alert(1), NAMED)
    world.outlets.emit(alert(2), BORN)
    world.outlets.identified(NAMED)
    world.outlets.emit({"kind": "lifecycle", "event": "container.start"}, NAMED)
    assert [record["labels"] for record in world.sent] == [{"cluster": "prod"}] * 2
    assert [record.get("labels") for record in world.shown if record["kind"] == "alert"] == [
        {"cluster": "prod"}
    ] * 2
    assert not [record for record in world.shown if record["kind"] != "alert" and "labels" in record]


def test_a_flood_of_waiting_alerts_is_bounded(world: World) -> None:
    """Beyond the bound they leave as they are: nothing is lost."""
    for number in range(5000):
        world.outlets.emit(alert(number), BORN)
    assert world.outlets.waiting == 4096
    assert len(world.sent) == 5000 - 4096


def test_no_receivers_cost_nothing(tmp_path: Path) -> None:
    """Nothing is made, nothing is imported; a configured one is."""
    empty = tmp_path / "agent.yaml"
    empty.write_text("{}\n")
    assert isinstance(open_outbox(load(empty, {})), NoOutbox)
    flags = {"alerts.file": [str(tmp_path / "out")], "alerts.queue_dir": [str(tmp_path / "q")]}
    made = open_outbox(load(empty, {}, flags))
    assert [sender.name.partition("-")[0] for sender in made.senders] == ["file"]
    made.close()


def test_every_kind_of_receiver_can_be_configured(tmp_path: Path) -> None:
    """Each has a name of its own, stable, that tells nothing of its address."""
    empty = tmp_path / "agent.yaml"
    empty.write_text("{}\n")
    flags = {
        "alerts.webhook": ["https://h/SECRET", "https://h/SECRET2"], "alerts.alertmanager": ["http://am:9093"],
        "alerts.syslog": ["udp://h:514"], "alerts.otlp": ["http://otel:4318"], "alerts.file": ["/tmp/x"],
    }  # fmt: skip
    names = [receiver.name for receiver in receivers_of(load(empty, {}, flags))]
    assert [name.partition("-")[0] for name in names] == [
        "webhook", "webhook", "alertmanager", "syslog", "otlp", "file",
    ]  # fmt: skip
    assert len(set(names)) == 6
    assert not [name for name in names if "SECRET" in name]
    assert names == [receiver.name for receiver in receivers_of(load(empty, {}, flags))]


def test_less_severe_alerts_can_stay_at_home(tmp_path: Path) -> None:
    """alerts.severity; one of unknown severity is sent."""
    got: list[str] = []

    class Sink:
        name, batch_records, batch_bytes = "sink", 10, 1 << 20

        def send(self, records: Any) -> None:
            """Remember."""
            got.extend(record["id"] for record in records)

        def close(self) -> None:
            """Nothing."""

    box = Outbox([Sender(Sink(), Spool(tmp_path, 1 << 20))], least="high")
    box.start()
    for number, severity in enumerate(("low", "high", "critical", "info", "?")):
        box.put(alert(number, severity=severity))
    box.close()
    assert got == ["ab12cd-1", "ab12cd-2", "ab12cd-4"]


def test_the_rate_is_configured(tmp_path: Path) -> None:
    """alerts.burst at once, alerts.rate a minute; alerts.repeat for the same again."""
    empty = tmp_path / "agent.yaml"
    empty.write_text("{}\n")
    flags = {"alerts.burst": ["3"], "alerts.rate": ["1"], "alerts.repeat": ["0"]}
    limiter = limiter_of(load(empty, {}, flags))
    assert [limiter.admit(1, "rule", n).passes for n in range(5)] == [True] * 3 + [False] * 2
