# SPDX-License-Identifier: Apache-2.0
"""Faults that the agent survives: guarded work, and threads that are restarted."""

from __future__ import annotations

import threading

from ringfence.faults import ErrorCounter, SupervisedThread, handler_errors, thread_failures
from tests.support.waiting import wait_for


def fail() -> None:
    """Work with a bug."""
    raise ZeroDivisionError("a bug")


def test_a_failure_in_guarded_work_is_contained() -> None:
    """It is counted by its place, which has a series from the start."""
    guard = ErrorCounter("test-place")
    assert handler_errors["test-place"] == 0
    assert guard(lambda: None)
    assert not guard(fail)
    assert handler_errors["test-place"] == 1


def test_a_thread_that_fails_is_restarted() -> None:
    """Each failure is counted and cleaned up; when the work returns, the thread has ended."""
    tries, tidied = list[int](), list[int]()

    def work() -> None:
        tries.append(1)
        if len(tries) < 4:
            fail()

    before = thread_failures["test-again"]
    thread = SupervisedThread("test-again", work, on_failure=lambda: tidied.append(1), back_off=(0.001, 0.01))
    thread.start()
    wait_for(lambda: not thread.alive, "the end")
    assert (len(tries), len(tidied), thread_failures["test-again"] - before) == (4, 3, 3)


def test_a_failing_cleanup_does_not_end_the_thread() -> None:
    """The handler of a failure may fail, too."""
    tries = list[int]()

    def work() -> None:
        tries.append(1)
        if len(tries) < 3:
            fail()

    thread = SupervisedThread("test-tidy", work, on_failure=fail, back_off=(0.001, 0.01))
    thread.start()
    wait_for(lambda: len(tries) == 3 and not thread.alive, "the third try")


def test_a_stopped_thread_is_not_restarted() -> None:
    """`stop` ends the pause and the thread."""
    tried = threading.Event()

    def work() -> None:
        tried.set()
        fail()

    thread = SupervisedThread("test-stop", work, back_off=(60.0, 60.0))
    thread.start()
    assert tried.wait(5)
    thread.stop()
    thread.join(5)
    assert not thread.alive
