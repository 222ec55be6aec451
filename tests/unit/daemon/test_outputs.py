# SPDX-License-Identifier: Apache-2.0
"""Records are written at once, and sent to receivers when the container has its names. None holds
a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ringfence.config import load
from ringfence.containers.model import Container, Enrichment, Facts
from ringfence.daemon.delivery.outputs import Egress, NoOutbox, Outputs, limiter_of, open_outbox
from ringfence.export.redact import Redactor
from ringfence.export.sinks.outbox import Outbox
from ringfence.export.sinks.receivers import receivers_of
from ringfence.export.sinks.sender import Sender
from ringfence.export.sinks.spool import Spool
from tests.support.receivers import alert
from tests.support.waiting import wait_for

BORN = Container("c" * 64, 77, 3)
NAMED = BORN.enriched(Facts(Enrichment.DONE, name="web", namespace="shop", pod="web-0"))


class World:
    """Outputs with a clock that the test moves."""

    def __init__(self, directory: Path, **words: str) -> None:
        empty = directory / "agent.yaml"
        empty.write_text("{}\n")
        self.now = 100.0
        self.shown: list[Mapping[str, Any]] = []
        self.sent: list[Mapping[str, Any]] = []
        flags = {key.replace("_", ".", 1): [value] for key, value in words.items()}
        self.known: dict[int, Container] = {}
        config = load(empty, {}, flags)
        redactor = Redactor(config.redact_patterns, defaults=config.redact_defaults)
        writer = SimpleNamespace(emit=self.shown.append)
        stream, outbox = SimpleNamespace(publish=lambda record: None), SimpleNamespace(put=self.sent.append)
        egress = Egress(redactor, cast(Any, writer), cast(Any, stream), cast(Any, outbox))
        self.outputs = Outputs(
            config, egress, self.known.get, digest=lambda: "3f2a90c1b7de", clock=lambda: self.now
        )

    @property
    def waiting(self) -> float:
        """Alerts that wait for names."""
        return next(iter(self.outputs.samples())).samples[0].value


@pytest.fixture
def world(tmp_path: Path) -> World:
    """The default: two seconds of waiting."""
    return World(tmp_path)


def test_the_first_alert_of_a_short_pod_arrives_with_its_name(world: World) -> None:
    """The line is out at once; the receiver gets the alert when the names are there, and the line
    is amended.
    """
    world.outputs.emit(alert(container={"id": "c" * 64}), BORN)
    assert len(world.shown) == 1
    assert not world.sent
    world.outputs.identified(NAMED)
    [sent] = world.sent
    assert (sent["container"]["pod"], sent["container"]["namespace"]) == ("web-0", "shop")
    assert sent["id"] == "ab12cd-1"
    amended = world.shown[1]
    assert (amended["kind"], amended["alerts"]) == ("identity", ["ab12cd-1"])
    assert amended["container"]["pod"] == "web-0"
    assert world.waiting == 0


def test_every_alert_has_the_digest_of_the_policies_in_force(world: World) -> None:
    """In the line and for receivers; records that are no alerts do without."""
    world.outputs.emit(alert(1), None)
    world.outputs.emit({"kind": "event", "event": "container.created"}, None)
    assert [record.get("policy_digest") for record in world.shown] == ["3f2a90c1b7de", None]
    assert [record["policy_digest"] for record in world.sent] == ["3f2a90c1b7de"]


def test_no_alert_waits_for_ever(world: World) -> None:
    """After the time it leaves as it is."""
    world.outputs.emit(alert(1), BORN)
    world.now += 1
    world.outputs.emit(alert(2), BORN)
    world.outputs.tick()
    assert not world.sent
    world.now += 1.5
    world.outputs.tick()
    assert [record["id"] for record in world.sent] == ["ab12cd-1"]
    world.outputs.flush()
    assert [record["id"] for record in world.sent] == ["ab12cd-1", "ab12cd-2"]
    assert world.waiting == 0


def test_the_alerts_of_an_unknown_container_do_not_wait_longer(world: World) -> None:
    """The runtimes were asked, and none knew it: there is nothing to amend."""
    world.outputs.emit(alert(), BORN)
    world.outputs.identified(BORN.enriched(Facts(Enrichment.PENDING)))
    assert not world.sent
    world.outputs.identified(BORN.enriched(Facts(Enrichment.NONE)))
    assert len(world.sent) == 1
    assert len(world.shown) == 1


def test_alerts_of_a_known_container_are_sent_at_once(world: World) -> None:
    """A named container, and an alert of the host's own."""
    world.outputs.emit(alert(1), NAMED)
    world.outputs.emit(alert(2), None)
    assert len(world.sent) == 2


def test_a_late_repetition_has_the_present_names(world: World) -> None:
    """It was held back while the container was unknown, and is reported when it is known."""
    world.known[BORN.cgroup_id] = NAMED
    world.outputs.emit(alert(container={"id": "c" * 64}), BORN)
    assert [record["container"]["pod"] for record in (*world.shown, *world.sent)] == ["web-0", "web-0"]
    assert world.waiting == 0


def test_waiting_can_be_turned_off(tmp_path: Path) -> None:
    """identity_wait 0."""
    world = World(tmp_path, alerts_identity_wait="0")
    world.outputs.emit(alert(), BORN)
    assert len(world.sent) == 1


def test_only_alerts_leave_the_node(world: World) -> None:
    """The life of containers is for the lines."""
    world.outputs.emit({"kind": "lifecycle", "event": "container.start"}, NAMED)
    assert len(world.shown) == 1
    assert not world.sent


def test_secrets_are_hidden_in_lines_and_alerts_and_names(world: World) -> None:
    """Also in labels that come with the names."""
    record = alert()
    record["process"]["args"] = ["app", "--password", "hunter2"]
    world.outputs.emit(record, BORN)
    labels = {"token": "hunter2", "app": "web"}
    world.outputs.identified(BORN.enriched(Facts(Enrichment.DONE, name="web", labels=labels)))
    assert "hunter2" not in str(world.shown) + str(world.sent)
    assert world.sent[0]["container"]["labels"]["app"] == "web"


def test_alerts_carry_the_labels_of_the_agent(tmp_path: Path) -> None:
    """Lines and receivers alike, held or not; other records do not."""
    world = World(tmp_path, alerts_labels="cluster=prod")
    world.outputs.emit(alert(1), NAMED)
    world.outputs.emit(alert(2), BORN)
    world.outputs.identified(NAMED)
    world.outputs.emit({"kind": "lifecycle", "event": "container.start"}, NAMED)
    assert [record["labels"] for record in world.sent] == [{"cluster": "prod"}] * 2
    assert [record.get("labels") for record in world.shown if record["kind"] == "alert"] == [
        {"cluster": "prod"}
    ] * 2
    assert not [record for record in world.shown if record["kind"] != "alert" and "labels" in record]


def test_the_number_of_waiting_alerts_is_bounded(world: World) -> None:
    """Beyond the bound they leave as they are: nothing is lost."""
    for number in range(5000):
        world.outputs.emit(alert(number), BORN)
    assert world.waiting == 4096
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
    """Each has a name of its own, stable, that does not reveal its address."""
    empty = tmp_path / "agent.yaml"
    empty.write_text("{}\n")
    flags = {
        "alerts.webhook": ["https://h/SECRET", "https://h/SECRET2"], "alerts.alertmanager": ["http://am:9093"],
        "alerts.syslog": ["udp://h:514"], "alerts.otlp": ["http://otel:4318"], "alerts.file": ["/tmp/x"],
        "alerts.slack": ["https://slack/SECRET"], "alerts.teams": ["https://teams/SECRET"],
    }  # fmt: skip
    names = [receiver.name for receiver in receivers_of(load(empty, {}, flags))]
    assert [name.partition("-")[0] for name in names] == [
        "webhook", "webhook", "alertmanager", "slack", "teams", "syslog", "otlp", "file",
    ]  # fmt: skip
    assert len(set(names)) == 8
    assert not [name for name in names if "SECRET" in name]
    assert names == [receiver.name for receiver in receivers_of(load(empty, {}, flags))]


def test_less_severe_alerts_can_be_kept_from_receivers(tmp_path: Path) -> None:
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
    wait_for(lambda: "ab12cd-4" in got, "the last one to be sent")  # `close` waits for a second only
    box.close()
    assert got == ["ab12cd-1", "ab12cd-2", "ab12cd-4"]


def test_the_rate_is_configured(tmp_path: Path) -> None:
    """alerts.burst at once, alerts.rate a minute; alerts.repeat for the same again."""
    empty = tmp_path / "agent.yaml"
    empty.write_text("{}\n")
    flags = {"alerts.burst": ["3"], "alerts.rate": ["1"], "alerts.repeat": ["0"]}
    limiter = limiter_of(load(empty, {}, flags))
    assert [limiter.admit(1, "rule", n).passes for n in range(5)] == [True] * 3 + [False] * 2
