# SPDX-License-Identifier: Apache-2.0
"""What the agent survives: errors that are counted, and threads that are restarted."""

from __future__ import annotations

import threading

from ringfence.faults import ErrorCounter, SupervisedThread, handler_errors, thread_failures
from tests.support.waiting import wait_for


def fail() -> None:
    """Work with a bug."""
    raise ZeroDivisionError("a bug")


def test_guarded_work_fails_for_itself_alone() -> None:
    """It is counted by its place, which has a series from the start."""
    guard = ErrorCounter("test-place")
    assert handler_errors["test-place"] == 0
    assert guard(lambda: None)
    assert not guard(fail)
    assert handler_errors["test-place"] == 1


def test_a_thread_that_fails_is_begun_anew() -> None:
    """Each failure is counted and tidied up after; when the work returns, it has ended."""
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


def test_a_failing_tidy_up_does_not_end_it() -> None:
    """Also what is to mend a failure may fail."""
    tries = list[int]()

    def work() -> None:
        tries.append(1)
        if len(tries) < 3:
            fail()

    thread = SupervisedThread("test-tidy", work, on_failure=fail, back_off=(0.001, 0.01))
    thread.start()
    wait_for(lambda: len(tries) == 3 and not thread.alive, "the third try")


def test_a_stopped_thread_is_not_begun_anew() -> None:
    """`stop` ends the pause, and with it the thread."""
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
