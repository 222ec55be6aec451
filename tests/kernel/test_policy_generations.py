# SPDX-License-Identifier: Apache-2.0
"""From one generation of policies to the next, while containers run."""

from __future__ import annotations

import errno
import json
import subprocess
from collections.abc import Collection

import pytest

from ringfence.abi import GENERATIONS
from ringfence.errors import Error, PolicyError
from ringfence.policy.encode import half_of
from ringfence.policy.install import Generations
from tests.kernel.binding import program_id
from tests.kernel.enforcer import Enforcer
from tests.kernel.probes import LABEL, results, run
from tests.kernel.test_policy_enforcement import CONNECT, PORT, TO_PORT
from tests.support import force
from tests.support.cgroups import Cgroup
from tests.support.descriptors import open_descriptors
from tests.support.scenes import cgroup_fixture
from tests.support.waiting import wait_for
from tests.unit.policy.documents import Document, Seen, policy, rule

pytestmark = pytest.mark.root
DENY = policy(rule(**TO_PORT, action="deny"))
#: connects by UDP, which never blocks, until its input ends; reports its start, then tries and
#: passes
HAMMER = f"""
import select, socket, sys
tries = passes = 0
while True:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        tries += 1
        try:
            s.connect(("127.0.0.1", {PORT}))
            passes += 1
        except PermissionError:
            pass
    if tries == 1:
        print("started", flush=True)
    if tries % 64 == 0 and select.select([0], [], [], 0)[0]:
        break
print(tries, passes)
"""


cgroup = cgroup_fixture(LABEL, after="enforcer")


def filler(number: int) -> Document:
    """Returns a policy that only changes the tables: other values, other sets, other numbers."""
    rules = [
        rule(
            id=f"f{number}-{n}",
            event="network.connect",
            match={"port": 7000 + 10 * number + n},
            action="deny",
        )
        for n in range(number % 9 + 1)
    ]
    return policy(*rules, name=f"filler-{number}")


def one_each(count: int) -> list[Document]:
    """Returns that many policies: pN is for containers only-N, and its rule rN denies port 5000 + N."""
    return [
        policy(
            rule(id=f"r{n}", event="network.connect", match={"port": 5000 + n}, action="deny"),
            name=f"p{n}",
            names=[f"only-{n}"],
        )
        for n in range(count)
    ]


def test_there_is_no_gap_between_generations(enforcer: Enforcer, cgroup: Cgroup) -> None:
    """A container that tries without pause is denied
    each time, through a hundred sets that all deny.
    """
    enforcer.enforce(DENY)
    hammer = cgroup.popen(
        ["/usr/bin/python3", "-c", HAMMER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert hammer.stdout is not None
    assert hammer.stdout.readline() == "started\n"
    for number in range(100):
        # Before and behind: the rule's own number changes each time.
        both = (filler(number), DENY) if number % 2 else (DENY, filler(number))
        enforcer.enforce(*both)
    said, _ = hammer.communicate("\n")
    tries, passes = map(int, said.split())
    assert tries > 100
    assert passes == 0


def test_each_generation_is_in_force_when_install_returns(
    enforcer: Enforcer, cgroup: Cgroup, act: str
) -> None:
    """Alternating between denied and allowed."""
    for denied in (True, False) * 4:
        enforcer.enforce(*([DENY] if denied else [filler(1)]))
        assert (results(run(cgroup, act, CONNECT))["connect"] == -errno.EPERM) is denied


def test_containers_keep_their_policies_across_generations(
    enforcer: Enforcer, cgroup: Cgroup, act: str
) -> None:
    """Each container's metadata are matched before the switch; policies may change their places."""
    chosen = policy(rule(**TO_PORT, action="deny"), name="chosen", names=["web"])
    slot = enforcer.probes.slot(cgroup)
    for number in range(4):
        documents = [chosen, filler(number)] if number % 2 else [filler(number), chosen]
        enforcer.generations.install(enforcer.compile(*documents), {slot: Seen("web")})
        assert results(run(cgroup, act, CONNECT)) == {"connect": -errno.EPERM}
    enforcer.generations.install(enforcer.compile(chosen), {slot: Seen("db")})
    assert results(run(cgroup, act, CONNECT))["connect"] != -errno.EPERM
    enforcer.generations.install(enforcer.compile(chosen), {})
    assert results(run(cgroup, act, CONNECT))["connect"] != -errno.EPERM


def test_a_refused_set_leaves_the_running_one(enforcer: Enforcer, cgroup: Cgroup, act: str) -> None:
    """Whether it is refused for its contents or for this node."""
    enforcer.enforce(DENY)
    before = enforcer.generations.number
    with pytest.raises(PolicyError):
        enforcer.enforce(policy(rule(require="deny")))
    assert enforcer.generations.number == before
    assert results(run(cgroup, act, CONNECT)) == {"connect": -errno.EPERM}


def test_a_set_that_cannot_be_written_leaves_the_running_one(
    enforcer: Enforcer, cgroup: Cgroup, act: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel resource runs out half way through."""
    enforcer.enforce(DENY)
    before, descriptors = enforcer.generations.number, open_descriptors()

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "out of memory")

    monkeypatch.setattr("ringfence.policy.encode.actions", fail)
    with pytest.raises(OSError, match="out of memory"):
        enforcer.enforce(filler(3))
    monkeypatch.undo()
    assert enforcer.generations.number == before
    assert open_descriptors() == descriptors
    assert results(run(cgroup, act, CONNECT)) == {"connect": -errno.EPERM}


def test_the_half_that_is_not_in_force_is_empty(enforcer: Enforcer) -> None:
    """After fifty sets there are as many descriptors as before, and one generation in the tables."""
    enforcer.enforce(DENY)
    descriptors = open_descriptors()
    for number in range(50):
        enforcer.enforce(filler(number))
    assert open_descriptors() == descriptors
    in_force = enforcer.generations.number % GENERATIONS
    keys = list(enforcer.probes.kernel.map("rule_operands").keys())
    assert {half_of("rule_operands", key) for key in keys} == {in_force}


def test_a_set_that_does_not_fit_is_refused(enforcer: Enforcer, cgroup: Cgroup, act: str) -> None:
    """It has more values than the tables; the message has the number, and the running set stays."""
    enforcer.enforce(DENY)
    space = enforcer.probes.kernel.map("rule_operands").max_entries // GENERATIONS
    ports = [
        rule(
            id=f"r{n}",
            event="network.connect",
            match={"port": [f"{1024 * n + 1}-{1024 * n + 1000}"]},
            action="deny",
        )
        for n in range(space // 1000 + 1)
    ]
    with pytest.raises(Error, match=rf"rule_operands; at most {space} are possible"):
        enforcer.enforce(policy(*ports))
    assert results(run(cgroup, act, CONNECT)) == {"connect": -errno.EPERM}


def profile_for(enforcer: Enforcer, policies: Collection[int]) -> int:
    """Returns the profile of containers with these policies (by index)."""
    compiled = enforcer.generations.compiled
    assert compiled is not None
    return enforcer.generations.profile_for(compiled.bits(policies))


def test_each_kind_of_container_has_its_rules(enforcer: Enforcer, cgroup: Cgroup, act: str) -> None:
    """Three hundred kinds of containers, each with its
    own policies; the first and the last are right.
    """
    enforcer.enforce(*one_each(300))
    profiles = {profile_for(enforcer, {n}) for n in range(300)}
    assert len(profiles) == 300
    for mine, other in ((0, 299), (299, 0)):
        enforcer.assign(cgroup, f"only-{mine}")
        assert results(run(cgroup, act, f"connect:127.0.0.1:{5000 + mine}")) == {"connect": -errno.EPERM}
        assert results(run(cgroup, act, f"connect:127.0.0.1:{5000 + other}"))["connect"] != -errno.EPERM


def test_another_agent_continues_the_generation_count(enforcer: Enforcer, cgroup: Cgroup, act: str) -> None:
    """New Generations on the same maps continue the count, and take over what is in force."""
    enforcer.enforce(DENY)
    number = enforcer.generations.number
    successor = Generations(enforcer.probes.kernel.map)
    assert successor.number == number
    assert successor.install(enforcer.compile(filler(2))) == number + 1
    assert results(run(cgroup, act, CONNECT))["connect"] != -errno.EPERM
    enforcer.generations = successor
    enforcer.enforce(DENY)
    assert wait_for(lambda: results(run(cgroup, act, CONNECT)) == {"connect": -errno.EPERM}, "the next set")


def test_numbers_of_profiles_are_used_again(enforcer: Enforcer, cgroup: Cgroup, act: str) -> None:
    """When every number was used: those that no container has; the container's own rules stay."""
    enforcer.enforce(*one_each(13))
    enforcer.assign(cgroup, "only-12")
    kinds = [frozenset(n for n in range(12) if number >> n & 1) for number in range(1, 4096)]
    numbers = [profile_for(enforcer, kind) for kind in kinds]
    assert max(numbers) < enforcer.probes.kernel.map("rule_sets").max_entries // GENERATIONS
    for number in range(400):  # more than there are left
        profile_for(enforcer, {12, *kinds[number]})
    assert results(run(cgroup, act, "connect:127.0.0.1:5012")) == {"connect": -errno.EPERM}
    assert results(run(cgroup, act, "connect:127.0.0.1:5000"))["connect"] != -errno.EPERM


def test_the_constants_of_the_programs_are_frozen(enforcer: Enforcer) -> None:
    """The agent's identity and the host's namespaces are in .rodata; libbpf freezes it."""
    bpftool = force.need_program("bpftool")
    shown = subprocess.run([bpftool, "-j", "map", "show"], check=True, capture_output=True).stdout
    program = next(one for one in enforcer.probes.kernel.programs if one.name == "task_newtask")
    described = [bpftool, "-j", "prog", "show", "id", str(program_id(program))]
    used = json.loads(subprocess.run(described, check=True, capture_output=True).stdout)["map_ids"]
    constants = [one for one in json.loads(shown) if one["id"] in used and one["name"].endswith(".rodata")]
    assert constants
    assert all(one["frozen"] for one in constants)
