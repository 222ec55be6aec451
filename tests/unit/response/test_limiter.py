# SPDX-License-Identifier: Apache-2.0
"""One container's loop does not drown the others' alerts, and every suppressed alert is counted."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.response.limiter import Limiter

S = 10**9


class Clock:
    now = 0

    def __call__(self) -> int:
        return self.now


def limiter(clock: Clock, **options: float) -> Limiter:
    """Returns a limiter with one alert per second and three at once."""
    chosen = {"rate": 1.0, "burst": 3, "same_ns": S // 2, **options}
    return Limiter(**chosen, now_ns=clock)  # type: ignore[arg-type]


def test_a_burst_passes_and_then_the_rate_applies() -> None:
    """Three different alerts at once, then one per second, which reports those suppressed before it."""
    clock = Clock()
    limit = limiter(clock)
    assert [limit.admit(1, "r", n).passes for n in range(5)] == [True, True, True, False, False]
    clock.now += S
    decision = limit.admit(1, "r", 9)
    assert (decision.passes, decision.suppressed) == (True, 2)
    assert not limit.admit(1, "r", 10).passes


def test_a_repetition_is_suppressed_although_tokens_are_left() -> None:
    """The same alert twice within half a second is sent once."""
    clock = Clock()
    limit = limiter(clock)
    assert limit.admit(1, "r", "x").passes
    assert not limit.admit(1, "r", "x").passes
    assert limit.admit(1, "r", "y").passes


def test_an_endless_repetition_is_reported_repeatedly() -> None:
    """A loop without pauses must not silence its alerts."""
    clock = Clock()
    limit = limiter(clock)
    passed = 0
    for _ in range(1000):
        passed += limit.admit(1, "r", "x").passes
        clock.now += S // 100
    assert 8 <= passed <= 13


def test_containers_and_rules_have_separate_limits() -> None:
    """Each pair has its own bucket."""
    limit = limiter(Clock(), burst=1)
    assert limit.admit(1, "r", "x").passes
    assert limit.admit(2, "r", "x").passes
    assert limit.admit(1, "s", "x").passes
    assert not limit.admit(1, "r", "y").passes


def test_suppressed_alerts_without_a_later_one_are_flushed() -> None:
    """Once the container is quiet, they are reported once, with the last of them."""
    clock = Clock()
    limit = limiter(clock, burst=1)
    for number in range(4):
        limit.admit(1, "r", number, f"alert {number}")
    assert limit.flush() == []
    clock.now += 6 * S
    [found] = limit.flush()
    assert (found.container, found.rule, found.times, found.what) == (1, "r", 3, "alert 3")
    assert limit.flush() == []


def test_the_number_of_pairs_is_bounded_and_their_counts_survive() -> None:
    """The pair quiet for the longest time is forgotten; its suppressed alerts are still reported."""
    clock = Clock()
    limit = limiter(clock, burst=1, size=2)
    limit.admit(1, "r", "a")
    limit.admit(1, "r", "b")
    for container in (2, 3, 4):
        limit.admit(container, "r", "a")
    assert len(limit) == 2
    assert [(found.container, found.times) for found in limit.flush()] == [(1, 1)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 2), st.integers(0, S)), max_size=80))
def test_every_alert_is_sent_or_counted(steps: list[tuple[int, int, int]]) -> None:
    """Sent + reported as suppressed = admitted, exactly."""
    clock = Clock()
    limit = limiter(clock, size=2)
    reported = 0
    for container, about, pause in steps:
        clock.now += pause
        decision = limit.admit(container, "r", about)
        if decision.passes:
            reported += 1 + decision.suppressed
        if pause % 7 == 0:
            reported += sum(one.times for one in limit.flush())
    clock.now += 100 * S
    reported += sum(one.times for one in limit.flush())
    assert reported == len(steps)


def test_may_pass_and_hold_agree_with_admit() -> None:
    """`may_pass` is False exactly if `admit` would suppress; `hold` counts like it."""
    clock = Clock()
    limit = limiter(clock)
    for number in range(3):
        assert limit.may_pass(1, "r")
        assert limit.admit(1, "r", number).passes
    assert not limit.may_pass(1, "r")
    assert limit.may_pass(1, "other")
    limit.hold(1, "r", "late")
    clock.now += S
    assert limit.may_pass(1, "r")
    assert limit.admit(1, "r", 9).suppressed == 1
    limit.hold(1, "r", "last")
    clock.now += 20 * S
    assert [(held.times, held.what) for held in limit.flush()] == [(1, "last")]
    assert limit.suppressed == 2


def test_a_held_alert_keeps_its_pairs_limit() -> None:
    """It is counted with those before it, and does not fill the bucket again."""
    clock = Clock()
    limit = limiter(clock, burst=1)
    assert limit.admit(1, "r", 1).passes
    assert [limit.hold(1, "r").suppressed for _ in range(3)] == [1, 2, 3]
    assert not limit.may_pass(1, "r")
    assert limit.capacity == (1, 4096)
    clock.now += 10 * S
    assert [(one.container, one.rule, one.times) for one in limit.flush()] == [(1, "r", 3)]


def test_a_known_pair_is_not_counted_in_the_sum_of_all() -> None:
    """Only pairs beyond the table are."""
    clock = Clock()
    limit = limiter(clock, burst=1, size=1)
    for container in (1, 2, 1, 2, 1, 3):
        limit.hold(container, "r")
    lost = {(one.container, one.rule): one.times for one in limit.flush()}
    assert lost == {(1, "r"): 3, (0, ""): 2}


def test_a_flush_reports_only_what_was_suppressed() -> None:
    """Nothing of a pair whose alerts were all sent."""
    clock = Clock()
    limit = limiter(clock)
    assert limit.admit(1, "r", 1).passes
    assert limit.admit(2, "r", 1).passes
    assert not limit.admit(2, "r", 1, "what").passes
    clock.now += 6 * S
    assert [tuple(one) for one in limit.flush()] == [(2, "r", 1, "what")]
    assert limit.flush() == []


def test_a_repetition_passes_when_its_time_is_over() -> None:
    """At the end of `same_ns`, and not before."""
    clock = Clock()
    limit = limiter(clock)
    clock.now = 10 * S
    assert limit.admit(1, "r", "x") == (True, 0)
    clock.now += S // 2 - 1
    assert limit.admit(1, "r", "x") == (False, 1)
    clock.now += 1
    assert limit.admit(1, "r", "x") == (True, 1)


def test_tokens_come_back_up_to_the_burst() -> None:
    """In proportion to the time, and no more than fit."""
    clock = Clock()
    limit = limiter(clock, rate=2.0)
    assert [limit.admit(1, "r", n).passes for n in range(4)] == [True, True, True, False]
    clock.now += S // 2 - 1
    assert not limit.may_pass(1, "r")
    clock.now += 1
    assert limit.may_pass(1, "r")
    clock.now += 100 * S
    assert [limit.admit(1, "r", n).passes for n in range(10, 14)] == [True, True, True, False]


def test_pairs_like_new_ones_are_forgotten() -> None:
    """Their bucket is full and their last alert may be repeated; those after a younger one stay."""
    clock = Clock()
    limit = limiter(clock)  # full after three seconds
    limit.admit(1, "r", 1)
    clock.now += 3 * S
    limit.admit(2, "r", 1)
    limit.flush()
    assert len(limit) == 2
    clock.now += 1
    limit.flush()
    assert len(limit) == 1
    assert limit.capacity == (1, 4096)
    patient = limiter(clock, same_ns=20 * S)
    patient.admit(1, "r", 1)
    clock.now += 20 * S
    patient.flush()
    assert len(patient) == 1
    clock.now += 1
    patient.flush()
    assert len(patient) == 0


def test_a_pair_is_quiet_from_a_time_on() -> None:
    """A pair whose alerts were held a moment ago is not flushed."""
    clock = Clock()
    limit = limiter(clock)
    limit.hold(1, "r", "x")
    clock.now += S - 1
    assert limit.flush(S) == []
    clock.now += 1
    assert [tuple(one) for one in limit.flush(S)] == [(1, "r", 1, "x")]


def test_what_was_suppressed_before_a_sent_alert_is_not_flushed() -> None:
    """It was reported with that alert."""
    clock = Clock()
    limit = limiter(clock, burst=1)
    limit.admit(1, "r", 1)
    limit.hold(1, "r", "old")
    clock.now += S
    assert limit.admit(1, "r", 2) == (True, 1)
    clock.now += 10 * S
    assert limit.flush() == []
    limit.hold(1, "r")
    clock.now += 10 * S
    assert [one.what for one in limit.flush()] == [None]


def test_a_pair_that_is_used_again_is_not_the_oldest() -> None:
    """Admitted or held, it counts as used."""
    clock = Clock()
    limit = limiter(clock, size=2)
    for container in (1, 2, 1, 3):
        limit.hold(container, "r")
    assert [one.container for one in limit.flush()] == [2]
    clock = Clock()
    limit = limiter(clock, size=2, burst=1)
    for container in (1, 2, 1, 3):
        limit.admit(container, "r", 1)
    assert limit.may_pass(2, "r")
    assert not limit.may_pass(1, "r")


def test_a_limit_without_a_rate_never_forgets_by_time() -> None:
    """Its bucket never fills, but the same alert may be repeated."""
    clock = Clock()
    limit = limiter(clock, rate=0.0, burst=1)
    assert limit.admit(1, "r", 1).passes
    clock.now += 10**6 * S
    assert not limit.may_pass(1, "r")


def test_alerts_of_a_gap_are_limited_by_the_times_of_their_events() -> None:
    """One alert a second for 80 seconds, reported at once: none is suppressed. A flood in it is."""
    clock = Clock()
    limit = limiter(clock)
    clock.now = 80 * S
    assert all(limit.admit(1, "r", n, time_ns=n * S).passes for n in range(80))
    limit = limiter(clock)
    sent = [limit.admit(1, "r", n, time_ns=40 * S + n).passes for n in range(80)]
    assert sum(sent) == 3
    assert not limit.may_pass(1, "r", 40 * S + 90)
    assert limit.may_pass(1, "r", 41 * S)


def test_a_late_alert_of_a_gap_does_not_turn_the_time_back() -> None:
    """An event older than the last one uses a token and adds none; the next one finds the right time."""
    clock = Clock()
    limit = limiter(clock)
    clock.now = 100 * S
    assert limit.admit(1, "r", "now", time_ns=100 * S).passes
    assert [limit.admit(1, "r", n, time_ns=n * S).passes for n in (10, 11, 12)] == [True, True, False]
    clock.now = 101 * S
    assert limit.admit(1, "r", "next", time_ns=101 * S).passes
    assert not limit.admit(1, "r", "another", time_ns=101 * S).passes


def test_a_time_in_the_future_counts_as_now() -> None:
    """A wrong time must not silence a container until then, nor give it tokens."""
    clock = Clock()
    limit = limiter(clock)
    assert [limit.admit(1, "r", n, time_ns=10**6 * S).passes for n in range(4)] == [True, True, True, False]
    clock.now = S
    assert limit.admit(1, "r", "later", time_ns=S).passes


def test_a_pair_of_a_gap_is_not_quiet_before_its_alerts_are_reported() -> None:
    """Its events are old, its alerts are not: the flush waits for the next of them."""
    clock = Clock()
    limit = limiter(clock, burst=1)
    clock.now = 80 * S
    for number in range(3):
        limit.admit(1, "r", number, number, time_ns=number)
    assert limit.flush() == []
    clock.now += 5 * S
    assert [(one.times, one.what) for one in limit.flush()] == [(2, 2)]
