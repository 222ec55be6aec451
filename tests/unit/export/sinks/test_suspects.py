# SPDX-License-Identifier: Apache-2.0
"""An alert that its receiver cannot digest: others go past it, and it is lost only on good evidence."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ringfence.export.sinks.sender import HELD_S, TRIES, Record, Refused, Sender, Unavailable
from ringfence.export.sinks.spool import Spool
from tests.support.receivers import alert

Verdict = Callable[[Sequence[str]], Exception | None]


class Moody:
    """Takes what `verdict` has nothing against. Its clock moves by each pause, and a second a request."""

    name, batch_records, batch_bytes = "moody", 10, 1 << 20

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.got: list[str] = []
        self.requests: list[list[str]] = []
        self.pauses: list[float] = []
        self.now = 1_800_000_000.0

    def send(self, records: Sequence[Record]) -> None:
        """All or nothing."""
        ids = [record["id"] for record in records]
        assert not [record for record in records if "_failed" in record], "a mark of the queue left the node"
        self.requests.append(ids)
        self.now += 1
        if error := self.verdict(ids):
            raise error
        self.got += ids

    def close(self) -> None:
        """Nothing is held."""

    def pause(self, seconds: float) -> bool:
        """Time passes."""
        self.pauses.append(seconds)
        self.now += seconds
        return False


def name(number: int) -> str:
    """An alert's id."""
    return str(alert(number)["id"])


def sender_of(directory: Path, receiver: Moody, **options: Any) -> Sender:
    """With an empty queue."""
    options.setdefault("chance", lambda: 0.5)
    spool = Spool(directory, 1 << 24)
    return Sender(receiver, spool, pause=receiver.pause, now=lambda: receiver.now, **options)


def put(sender: Sender, *numbers: int) -> None:
    """Alerts into its queue."""
    for number in numbers:
        sender.spool.append(json.dumps(alert(number)).encode())


def chokes_on(*numbers: int, error: Exception | None = None) -> Verdict:
    """Any request with one of these fails."""
    poison = {name(number) for number in numbers}
    return lambda ids: (error or Unavailable("http_5xx", "500")) if poison & set(ids) else None


@pytest.mark.parametrize(
    "error",
    [Unavailable("http_5xx", "500"), Unavailable("timeout"), Unavailable("connection"), KeyError("x")],
)
def test_other_alerts_pass_one_that_always_fails(tmp_path: Path, error: Exception) -> None:
    """Whatever it does to its receiver, or to our own code."""
    receiver = Moody(chokes_on(4, error=error))
    sender = sender_of(tmp_path, receiver)
    put(sender, *range(20))
    for _ in range(3):
        sender.step(idle=0)
    assert sorted(receiver.got) == sorted(name(number) for number in range(20) if number != 4)
    assert not any(sender.lost.values())
    assert sender.spool.records == 1


def test_it_is_lost_after_an_hour_in_which_others_were_accepted(tmp_path: Path) -> None:
    """And counted; meanwhile it costs each batch one request more."""
    receiver = Moody(chokes_on(4))
    sender = sender_of(tmp_path, receiver)
    put(sender, *range(10))
    began, number = receiver.now, 100
    while not sender.lost["undeliverable"]:
        assert receiver.now - began < 3 * HELD_S
        put(sender, number)
        number += 1
        receiver.now += 60
        sender.step(idle=0)
    assert receiver.now - began >= HELD_S
    assert [name(4)] * TRIES == [ids[0] for ids in receiver.requests if ids == [name(4)]][:TRIES]
    assert set(receiver.got) == {name(n) for n in (*range(10), *range(100, number)) if n != 4}
    assert sender.spool.records == 0
    assert sum(sender.lost.values()) == 1


def test_no_alert_is_suspect_while_none_is_accepted(tmp_path: Path) -> None:
    """A receiver that answers 500 to everything, for a day: no alert is blamed, all arrive in order."""
    receiver = Moody(lambda ids: None if receiver.now > 1_800_086_400 else Unavailable("http_5xx", "500"))
    sender = sender_of(tmp_path, receiver)
    put(sender, *range(25))
    while sender.spool.records:
        sender.step(idle=0)
    assert receiver.got == [name(number) for number in range(25)]
    assert not any(sender.lost.values())


@pytest.mark.parametrize("jump", [86_400, -86_400], ids=["forward", "back"])
def test_a_clock_that_jumps_loses_no_alert(tmp_path: Path, jump: int) -> None:
    """A day passes between two failures, or the day before begins: fewer than 16 failures lose nothing."""
    failures = iter(range(TRIES - 1))
    receiver = Moody(
        lambda ids: Unavailable("http_5xx", "500")
        if name(4) in ids and next(failures, None) is not None
        else None
    )
    sender = sender_of(tmp_path, receiver)
    put(sender, *range(10))
    for number in range(100, 100 + TRIES):
        put(sender, number)
        receiver.now += jump
        sender.step(idle=0)
    assert next(failures, None) is None, "it did not fail often"
    assert set(receiver.got) == {name(n) for n in (*range(10), *range(100, 100 + TRIES))}
    assert not any(sender.lost.values())


@pytest.mark.parametrize("seed", range(5))
def test_a_receiver_that_fails_at_random_gets_everything(tmp_path: Path, seed: int) -> None:
    """Half of its back ends are broken: an alert that fails there is not at fault."""
    dice = random.Random(seed)
    receiver = Moody(lambda ids: Unavailable("http_5xx", "502") if dice.random() < 0.6 else None)
    sender = sender_of(tmp_path, receiver, chance=dice.random)
    put(sender, *range(200))
    while sender.spool.records:
        sender.step(idle=0)
    assert set(receiver.got) == {name(number) for number in range(200)}
    assert not any(sender.lost.values())


def test_a_single_suspect_is_tried_less_and_less_often(tmp_path: Path) -> None:
    """Nothing else is to be sent, so nothing says whose fault it is: it is kept, without a busy loop."""
    receiver = Moody(chokes_on(0))
    sender = sender_of(tmp_path, receiver)
    put(sender, *range(5))
    sender.step(idle=0)
    del receiver.pauses[:]
    for _ in range(60):
        sender.step(idle=0)
    assert receiver.pauses[:3] == sorted(receiver.pauses[:3])
    assert receiver.pauses[-1] > 30
    assert not any(sender.lost.values())
    assert sender.spool.records == 1


def test_a_single_suspect_does_not_block_later_alerts(tmp_path: Path) -> None:
    """It came first, alone; what came after it is not held up by it."""
    receiver = Moody(chokes_on(0))
    sender = sender_of(tmp_path, receiver)
    put(sender, 0)
    receiver.batch_records = 1
    put(sender, 1, 2, 3)
    for _ in range(6):
        sender.step(idle=0)
    assert receiver.got == [name(1), name(2), name(3)]


def test_the_order_stays_while_the_receiver_is_unreachable(tmp_path: Path) -> None:
    """It was alone for long, and reached no receiver: it is not moved behind later ones."""
    receiver = Moody(
        lambda ids: None if receiver.now > 1_800_000_900 else Unavailable("connection", blameless=True)
    )
    sender = sender_of(tmp_path, receiver)
    put(sender, 0)
    receiver.batch_records = 1
    put(sender, 1, 2, 3)
    while sender.spool.records:
        sender.step(idle=0)
    assert receiver.got == [name(0), name(1), name(2), name(3)]


def test_retry_after_is_respected_and_blames_no_alert(tmp_path: Path) -> None:
    """A receiver accepts five requests a minute, and answers 429 to more.

    A batch that is sent one by one (after a short outage) waits as long as requested, and keeps its order.
    """
    receiver = Moody(lambda ids: None)
    last: list[float] = []

    def verdict(ids: Sequence[str]) -> Exception | None:
        if receiver.now < 1_800_000_010:
            return Unavailable("http_5xx", "503")
        del last[: len([moment for moment in last if moment <= receiver.now - 60])]
        if len(last) >= 5:
            return Unavailable("http_4xx", "429", retry_after=30.0, blameless=True)
        last.append(receiver.now)
        return Unavailable("http_5xx", "500") if len(ids) > 1 else None

    receiver.verdict = verdict
    sender = sender_of(tmp_path, receiver, chance=lambda: 0.0)
    put(sender, *range(10))
    while sender.spool.undelivered:
        sender.step(idle=0)
    assert receiver.got == [name(number) for number in range(10)]
    assert receiver.pauses.count(30.0) >= 2
    assert len(receiver.requests) < 60
    assert not any(sender.lost.values())


def test_a_given_up_alert_is_counted_once(tmp_path: Path) -> None:
    """One is refused for what it is; then the receiver is away for a while. Put = sent + lost, exactly."""
    poison = name(0)

    def verdict(ids: Sequence[str]) -> Exception | None:
        if poison in ids:
            return Refused("400")
        return Unavailable("http_5xx", "500") if receiver.now < 1_800_000_050 else None

    receiver = Moody(verdict)
    sender = sender_of(tmp_path, receiver, chance=lambda: 0.0)
    put(sender, *range(10))
    while sender.spool.undelivered:
        sender.step(idle=0)
    assert sorted(receiver.got) == [name(number) for number in range(1, 10)]
    assert (sender.sent, sender.lost["refused"]) == (9, 1)


def test_a_suspect_is_not_blamed_while_the_receiver_is_unreachable(tmp_path: Path) -> None:
    """Others were taken since it failed; then the receiver is gone for hours, and says nothing of anybody."""
    receiver = Moody(chokes_on(4))
    sender = sender_of(tmp_path, receiver)
    put(sender, *range(10))
    sender.step(idle=0)
    number = 100
    for _ in range(2 * TRIES):
        put(sender, number)
        batch = [name(number)]
        receiver.verdict = lambda ids, batch=batch: None if ids == batch else Unavailable("x", blameless=True)  # type: ignore[misc]
        sender.step(idle=0)
        receiver.now += HELD_S
        number += 1
    assert sender.spool.undelivered == 1
    assert not any(sender.lost.values())


def test_suspects_outlive_the_agent(tmp_path: Path) -> None:
    """How often it failed, and since when, is on the disk."""
    receiver = Moody(chokes_on(4))
    sender = sender_of(tmp_path, receiver)
    put(sender, *range(10))
    sender.step(idle=0)
    sender.spool.close()
    again = sender_of(tmp_path, receiver)
    receiver.now += HELD_S
    for number in range(100, 100 + TRIES + 1):
        put(again, number)
        again.step(idle=0)
    assert again.lost["undeliverable"] == 1


@pytest.mark.parametrize("payload", [b"[" * 100_000, b"7", b"\xff", b'{"_failed": "x", "id": "ok"}'])
def test_a_broken_record_ends_nothing(tmp_path: Path, payload: bytes) -> None:
    """Somebody wrote into the queue: what is no alert is counted, the rest is sent."""
    receiver = Moody(lambda ids: None)
    sender = sender_of(tmp_path, receiver)
    sender.spool.append(payload)
    put(sender, 1)
    sender.step(idle=0)
    assert receiver.got[-1] == name(1)
    assert sender.lost["corrupt"] == (b"ok" not in payload)
