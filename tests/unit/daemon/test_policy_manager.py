# SPDX-License-Identifier: Apache-2.0
"""Policies that change while the agent runs: one attempt that fails is not the last one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ringfence import log
from ringfence.bpf.attach import AttachPlan
from ringfence.config import load
from ringfence.daemon.parts import Loaded
from ringfence.daemon.policies.manager import PolicyFiles, PolicyManager
from ringfence.daemon.policies.manager import load as load_first
from ringfence.export.stats import Stats
from ringfence.policy import CompiledPolicies, NodeTiers
from tests.support.waiting import wait_for

POLICY = """apiVersion: ringfence.dev/v1
kind: Policy
metadata: {{name: {name}}}
spec:
  selector: {{containers: all}}
  rules:
    - {{id: one, title: a title, severity: low, event: reboot, match: any, action: alert}}
"""


class FakeKernel:
    """Programs that can be attached without an effect. `attach` raises what `fails` holds, once."""

    def __init__(self) -> None:
        self.fails: list[OSError] = []
        self.attached = 0

    def configure_syscalls(self, *_: Any) -> None:
        """Nothing to set."""

    def attach(self, _plan: AttachPlan) -> None:
        """Counts what succeeded."""
        if self.fails:
            raise self.fails.pop()
        self.attached += 1


class FakeGenerations:
    """`install` raises what `fails` holds, once."""

    def __init__(self) -> None:
        self.compiled: CompiledPolicies | None = None
        self.fails: list[Exception] = []
        self.number = 0

    def install(self, compiled: CompiledPolicies, _containers: Any) -> int:
        if self.fails:
            raise self.fails.pop()
        self.compiled, self.number = compiled, self.number + 1
        return self.number


class World:
    """A manager of one file; what it hands to the loop is run by `until`. `accepts`: the loop
    takes calls.
    """

    def __init__(self, directory: Path, changed_meanwhile: str = "", kept: Path | None = None) -> None:
        self.file = directory / "policy.yaml"
        self.write("first")
        self.calls: list[Callable[[], None]] = []
        self.accepts, self.refused = True, 0
        self.generations, self.stats, self.kernel = FakeGenerations(), Stats(), FakeKernel()
        config = load(None, {}, {"policies": [str(self.file)], "policies_kept": [str(kept or "off")]})
        files, first = PolicyFiles(config), load_first(config, NodeTiers.usual())
        if changed_meanwhile:
            self.write(changed_meanwhile)
        loaded = Loaded(cast(Any, self.kernel), cast(Any, None), cast(Any, self.generations))
        planner = SimpleNamespace(tiers=NodeTiers.usual(), plan=lambda *sets: AttachPlan())
        self.manager = PolicyManager(
            files, loaded, cast(Any, planner), self.stats, self._take, dict, lambda compiled: None
        )
        self.manager.start(first)

    def _take(self, work: Callable[[], None]) -> bool:
        if not self.accepts:
            self.refused += 1
            return False
        self.calls.append(work)
        return True

    def write(self, name: str) -> None:
        """Another policy in the file."""
        self.file.write_text(POLICY.format(name=name))

    def until(self, done: Callable[[], bool], what: str) -> None:
        """Be the loop until then."""

        def turn() -> bool:
            while self.calls:
                self.calls.pop(0)()
            return done()

        wait_for(turn, what)

    def in_force(self) -> list[str]:
        """The names of the policies."""
        assert self.generations.compiled is not None
        return [policy.name for policy in self.generations.compiled.policies.policies]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """With its first policy in force."""
    return World(tmp_path)


def test_a_file_that_changes_during_the_start_is_read_again(tmp_path: Path) -> None:
    """The kernel loads programs between the reading of the first set and the first look at the
    files.
    """
    world = World(tmp_path, changed_meanwhile="second")
    assert world.in_force() == ["first"]
    world.manager.watch()
    world.until(lambda: world.in_force() == ["second"], "the change")
    world.manager.close()


def test_without_a_thread_the_attempt_is_refused_and_repeated(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fork bomb takes the node's last thread: the set stays, and the next look tries again."""
    world.write("second")
    with monkeypatch.context() as nothing_left:
        nothing_left.setattr(threading.Thread, "start", no_thread)
        world.manager.reload("files changed")
    assert world.in_force() == ["first"]
    assert world.manager.state.refused
    world.manager.watch()
    world.until(lambda: world.in_force() == ["second"], "the second attempt")
    assert not world.manager.state.refused
    world.manager.close()


@pytest.mark.parametrize("lacks", ["a thread", "a program"])
def test_what_was_detached_is_attached_by_a_later_attempt(
    world: World, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    """Nobody else asks for it again."""
    world.kernel.attached = 0
    with monkeypatch.context() as context:
        if lacks == "a thread":
            context.setattr(threading.Thread, "start", no_thread)
        else:
            world.kernel.fails.append(OSError(12, "Cannot allocate memory"))
        world.manager.reattach()
        world.until(lambda: bool(world.manager.state.refused), "the refusal")
    assert world.kernel.attached == 0
    world.manager.watch()
    world.until(lambda: world.kernel.attached > 0 and not world.manager.state.refused, "the second attempt")
    world.manager.close()


def test_a_containers_file_is_rejected_without_a_thread(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runtime gets the problem at once; the next file is read."""
    answers: list[tuple[str, str]] = []
    with monkeypatch.context() as nothing_left:
        nothing_left.setattr(threading.Thread, "start", no_thread)
        world.manager.add(
            "guest", POLICY.format(name="guest").encode(), lambda *answer: answers.append(answer)
        )
    assert answers == [("", "can't start new thread")]
    world.manager.add("guest", POLICY.format(name="guest").encode(), lambda *answer: answers.append(answer))
    world.until(lambda: len(answers) == 2, "the second file")
    assert answers[1][0].startswith("file:")


@pytest.mark.parametrize("error", [OSError(7, "too big"), KeyError("a bug")])
def test_a_switch_that_fails_is_not_the_last(world: World, error: Exception) -> None:
    """Whatever it raises: refused, and the next change is read."""
    world.generations.fails = [error]
    world.write("second")
    world.manager.reload("files changed")
    world.until(lambda: bool(world.manager.state.refused), "the refusal")
    assert world.in_force() == ["first"]
    world.write("third")
    world.manager.reload("files changed")
    world.until(lambda: world.in_force() == ["third"], "the next change")


def test_a_full_queue_of_the_loop_is_waited_for(world: World) -> None:
    """A set that was read is not forgotten because too many calls wait at that moment."""
    world.accepts = False
    world.write("second")
    world.manager.reload("files changed")
    wait_for(lambda: world.refused > 0, "the first try")
    world.accepts = True
    world.until(lambda: world.in_force() == ["second"], "the set")


def no_thread(thread: threading.Thread) -> None:
    """What CPython raises when clone(2) fails."""
    raise RuntimeError("can't start new thread")


def test_the_digest_is_that_of_the_files_in_force(world: World) -> None:
    """A refused set changes nothing; the same files as before have the same digest again."""
    first = world.manager.state.digest
    world.write("second")
    world.manager.reload("files changed")
    world.until(lambda: world.in_force() == ["second"], "the second set")
    second = world.manager.state.digest
    assert len({"", first, second}) == 3
    world.generations.fails = [OSError(7, "too big")]
    world.write("third")
    world.manager.reload("files changed")
    world.until(lambda: bool(world.manager.state.refused), "the refusal")
    assert world.manager.state.digest == second
    world.write("first")
    world.manager.reload("files changed")
    world.until(lambda: world.in_force() == ["first"], "the first set")
    assert world.manager.state.digest == first
    [info] = [family for family in world.manager.samples() if family.name == "ringfence_node_info"]
    assert info.samples[0].labels["policy_digest"] == first


def test_the_log_has_the_digest_that_the_metrics_have(tmp_path: Path) -> None:
    """For the set of the start and for each later one, so that nodes can be compared by any of them."""
    lines: list[bytes] = []
    log.configure("info", lines.append)
    try:
        world = World(tmp_path)
        world.write("second")
        world.manager.reload("files changed")
        world.until(lambda: world.in_force() == ["second"], "the second set")
    finally:
        log.configure()
    records = [json.loads(line) for line in lines]
    logged = [one["digest"] for one in records if one["message"] == "policies in force"]
    [info] = [family for family in world.manager.samples() if family.name == "ringfence_node_info"]
    assert len(set(logged)) == 2
    assert logged[-1] == info.samples[0].labels["policy_digest"] == world.manager.state.digest


def test_a_set_in_force_is_kept_and_a_start_with_the_kept_one_says_so(tmp_path: Path) -> None:
    """At the start and at each change; the problems are in the state, and so in status and metrics."""
    world = World(tmp_path, kept=tmp_path / "kept.json")
    kept = tmp_path / "kept.json"
    wait_for(kept.exists, "the first set to be kept")
    world.write("second")
    world.manager.reload("files changed")
    world.until(lambda: world.in_force() == ["second"], "the second set")
    wait_for(lambda: "name: second" in json.loads(kept.read_text())[str(world.file)], "the second to be kept")
    compiled = world.generations.compiled
    assert compiled is not None
    world.manager.start(compiled, ["policy.yaml:1:1: bad"])
    assert world.manager.state.refused == ("policy.yaml:1:1: bad",)


def test_a_rule_without_effect_is_counted_as_such(tmp_path: Path) -> None:
    """The sum of `ringfence_rules` is the number of rules in the files."""
    world = World(tmp_path)
    blind = "{id: two, title: a title, severity: low, event: file.map, match: {access: write}, action: deny}"
    world.file.write_text(POLICY.format(name="second") + f"    - {blind}\n")
    world.manager.reload("files changed")
    world.until(lambda: world.in_force() == ["second"], "the change")
    assert world.manager.state.rules == {("alert", "observe"): 1, ("none", "none"): 1}
