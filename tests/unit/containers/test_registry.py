# SPDX-License-Identifier: Apache-2.0
"""The life of containers in the registry: creation, attribution, and reuse of their slots."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.abi import NO_SLOT, Fact
from ringfence.containers.model import Container, Enrichment, Facts, State
from ringfence.containers.registry import TOMBSTONE_NS, Registry
from tests.unit.containers.fakes import FakeSlots, create, remove, start, stop

HEX = "ab" * 32


class Clock:
    now = 0

    def __call__(self) -> int:
        return self.now


def test_the_first_event_of_a_container_has_id_and_path() -> None:
    """The facts of CREATE are known before other events; the others are unknown, not empty."""
    slots = FakeSlots()
    registry = Registry(slots)
    slot = slots.enroll(5)
    registry.on_event(create(5, slot, f"/docker/{HEX}"))
    found = registry.get(slot, 5)
    assert found is not None
    assert (found.id, found.cgroup_path, found.runtime, found.state) == (
        HEX,
        f"/docker/{HEX}",
        "docker",
        State.CREATED,
    )
    assert (found.name, found.image, found.privileged, found.enrichment) == (
        None,
        None,
        None,
        Enrichment.PENDING,
    )


def test_start_records_the_posture() -> None:
    """Capabilities, seccomp and shared namespaces of the first armed task."""
    slots = FakeSlots()
    registry = Registry(slots)
    registry.on_event(create(5, slots.enroll(5), "/rftest-a"))
    changed = registry.on_event(
        start(5, 0, cap_effective=1 << 21, cap_bounding=1 << 21 | 1 << 17, shared_namespaces=0x40000000)
    )
    assert changed is not None
    assert changed.state is State.RUNNING
    assert changed.posture is not None
    assert changed.posture.capabilities == ("CAP_SYS_ADMIN",)
    assert changed.posture.shared_namespaces == ("net",)
    assert changed.privileged is True


def test_no_new_privs_comes_from_the_facts() -> None:
    """As the kernel reports it, not a file."""
    slots = FakeSlots()
    registry = Registry(slots)
    registry.on_event(create(5, slots.enroll(5), "/rftest-a"))
    changed = registry.on_event(start(5, 0, facts=int(Fact.NO_NEW_PRIVS), seccomp=2))
    assert changed is not None
    assert changed.posture is not None
    assert (changed.posture.no_new_privs, changed.posture.seccomp, changed.privileged) == (
        True,
        "filter",
        False,
    )


def test_a_removed_container_is_attributed_until_its_tombstone_expires() -> None:
    """Late events still find it; later ones are counted, not guessed."""
    slots, clock = FakeSlots(), Clock()
    registry = Registry(slots, now_ns=clock)
    slot = slots.enroll(5)
    registry.on_event(create(5, slot, "/rftest-a"))
    slots.removed(slot)
    removed = registry.on_event(remove(5, slot))
    assert removed is not None
    assert (removed.cgroup_id, removed.state) == (5, State.REMOVED)  # the record of its end names it
    assert slots.freed == [slot]
    assert len(registry) == 0
    late = registry.get(slot, 5)
    assert late is not None
    assert late.state is State.REMOVED
    clock.now = TOMBSTONE_NS + 1
    registry.sweep()
    assert registry.get(slot, 5) is None
    assert registry.counts.unattributed == {"no-container": 0, "unknown": 1, "slot-reused": 0}


def test_a_reused_slot_does_not_give_the_previous_container() -> None:
    """The cgroup id decides; the slot is only an index."""
    slots = FakeSlots(size=1)
    registry = Registry(slots, tombstones=1)
    for cgroup in (5, 6, 7):
        slot = slots.enroll(cgroup)
        registry.on_event(create(cgroup, slot, f"/rftest-{cgroup}"))
        if cgroup < 7:
            slots.removed(slot)
            registry.on_event(remove(cgroup, slot))
    assert registry.get(0, 5) is None
    assert registry.counts.unattributed["slot-reused"] == 1
    assert registry.counts.evicted == 1
    six = registry.get(0, 6)
    assert six is not None
    assert six.id == "rftest-6"


def test_moved_tasks_keep_the_slot_of_a_removed_container() -> None:
    """Leaving the cgroup is no evasion: the slot is freed when the last armed task ends."""
    slots, clock = FakeSlots(), Clock()
    registry = Registry(slots, now_ns=clock)
    slot = slots.enroll(5)
    registry.on_event(create(5, slot, "/rftest-a"))
    slots.started(slot, tasks=1)
    slots.removed(slot)
    registry.on_event(remove(5, slot))
    clock.now = 10 * TOMBSTONE_NS
    registry.sweep()
    assert slots.freed == []
    assert registry.unfreed == 1
    assert registry.counts.removed == 1  # not once more for each sweep
    held = registry.get(slot, 5)
    assert held is not None
    assert held.id == "rftest-a"
    slots.change(slot, tasks=0)
    registry.on_event(stop(5, slot))
    assert (slots.freed, registry.unfreed, len(registry)) == ([slot], 0, 0)


def test_a_lost_remove_is_handled_by_the_sweep() -> None:
    """If the ring was full, the slot is still freed, once."""
    slots = FakeSlots()
    registry = Registry(slots)
    slot = slots.enroll(5)
    registry.on_event(create(5, slot, "/rftest-a"))
    slots.removed(slot)
    assert registry.sweep() == 1
    assert registry.sweep() == 0
    registry.on_event(remove(5, slot))
    assert (slots.freed, registry.counts.removed, len(registry)) == ([slot], 1, 0)


def test_a_lost_create_is_recovered_from_the_kernels_table() -> None:
    """The table is authoritative for the container; its name follows later."""
    slots = FakeSlots()
    registry = Registry(slots)
    slot = slots.enroll(5)
    found = registry.get(slot, 5)
    assert found is not None
    assert (found.id, found.cgroup_path) == ("cgroup-5", "")
    assert registry.counts.recovered == 1
    registry.on_event(create(5, slot, f"/docker/{HEX}"))
    named = registry.get(slot, 5)
    assert named is not None
    assert named.id == HEX
    assert registry.counts.created == 1


def test_a_truncated_path_is_not_used_as_a_name() -> None:
    """Its end is missing, which has the id."""
    slots = FakeSlots()
    registry = Registry(slots)
    found = registry.on_event(create(5, slots.enroll(5), "/kubepods/" + "a" * 64, truncated=True))
    assert found is not None
    assert found.id == "cgroup-5"
    after = registry.apply(5, Facts(Enrichment.DONE, cgroup_path=f"/x/{HEX}"))
    assert after is not None
    assert after.id == HEX


def test_events_of_no_container_are_counted() -> None:
    """A record without a cgroup belongs to no container."""
    registry = Registry(FakeSlots())
    assert registry.get(NO_SLOT, 0) is None
    assert registry.get(NO_SLOT, 77) is None
    assert registry.counts.unattributed == {"no-container": 1, "unknown": 1, "slot-reused": 0}


def test_enrichment_adds_facts_and_removes_none() -> None:
    """A later answer with fewer facts does not remove a name, and a tombstone can still be enriched."""
    slots = FakeSlots()
    registry = Registry(slots)
    slot = slots.enroll(5)
    registry.on_event(create(5, slot, f"/docker/{HEX}"))
    registry.apply(5, Facts(Enrichment.DONE, name="web", image="nginx"))
    slots.removed(slot)
    registry.on_event(remove(5, slot))
    registry.apply(5, Facts(Enrichment.GONE))
    found = registry.find(5)
    assert found is not None
    assert (found.name, found.image, found.enrichment) == ("web", "nginx", Enrichment.GONE)
    assert len(registry) == 0
    assert registry.apply(99, Facts(Enrichment.DONE)) is None


def test_names_of_another_pod_are_refused() -> None:
    """The cgroup's path decides which pod it is; annotations may be forged."""
    slots = FakeSlots()
    registry = Registry(slots)
    uid = "12345678-1234-1234-1234-123456789abc"
    registry.on_event(create(5, slots.enroll(5), f"/kubepods/pod{uid}/{HEX}"))
    wish = Facts(Enrichment.DONE, pod="dns", namespace="kube-system", pod_uid=uid.replace("1", "2"))
    after = registry.apply(5, wish)
    assert after is not None
    assert (after.pod, after.namespace, after.pod_uid) == (None, None, uid)
    after = registry.apply(5, Facts(Enrichment.DONE, pod="web", namespace="shop", pod_uid=uid))
    assert after is not None
    assert (after.pod, after.namespace, after.pod_uid) == ("web", "shop", uid)


def test_annotations_do_not_make_a_pod_of_another_container() -> None:
    """Engines copy an image's annotations into the bundle, and its author must not choose the namespace that
    policies exclude. This also applies if the path is known later, or only a part of a pod is named.
    """
    registry = Registry(FakeSlots())
    uid = "12345678-1234-1234-1234-123456789abc"
    for cgroup, wish in enumerate((
        Facts(Enrichment.DONE, name="web", pod="dns", namespace="kube-system", pod_uid=uid),
        Facts(Enrichment.DONE, name="web", namespace="kube-system"),
        Facts(Enrichment.DONE, name="web", namespace="kube-system", pod_uid=uid, cgroup_path=f"/x/{HEX}"),
    ), start=5):  # fmt: skip
        path = "" if wish.cgroup_path else f"/machine.slice/libpod-{HEX}.scope"
        registry.add(Container.unnamed(cgroup, cgroup).at(path))
        after = registry.apply(cgroup, wish)
        assert after is not None
        assert (after.name, after.pod, after.namespace, after.pod_uid) == ("web", None, None, None)


def test_a_slot_that_the_kernel_freed_is_not_freed_again() -> None:
    """It may belong to another container, which keeps it; the first one is forgotten."""
    slots, freed = FakeSlots(), list[tuple[str, bool]]()
    registry = Registry(slots, on_free=lambda container, owned: freed.append((container.id, owned)))
    slot = slots.enroll(5)
    registry.on_event(create(5, slot, "/rftest-a"))
    slots.removed(slot)
    slots.recycled(slot)
    slots.free_slots.remove(slot)
    slots.free_slots.insert(0, slot)
    assert slots.enroll(6) == slot
    registry.on_event(create(6, slot, "/rftest-b"))
    registry.on_event(remove(5, slot))
    registry.sweep()
    assert freed == [("rftest-a", False)]
    assert [container.id for container in registry] == ["rftest-b"]
    assert slots.owners == {6: slot}


def test_a_container_with_a_lost_removal_is_swept() -> None:
    """The kernel freed its slot, and the record was lost."""
    slots = FakeSlots()
    registry = Registry(slots)
    slot = slots.enroll(5)
    registry.on_event(create(5, slot, "/rftest-a"))
    slots.recycled(slot)
    registry.sweep()
    assert len(registry) == 0
    assert registry.counts.removed == 1


def test_reconciling_follows_the_kernels_table() -> None:
    """Unknown containers in it are added, others are removed."""
    slots = FakeSlots()
    registry = Registry(slots)
    gone, stays, missed = (slots.enroll(cgroup) for cgroup in (5, 6, 7))
    registry.on_event(create(5, gone, "/rftest-a"))
    registry.on_event(create(6, stays, "/rftest-b"))
    slots.recycled(gone)
    assert registry.reconcile() == (1, 1)
    assert {container.cgroup_id: container.slot for container in registry} == {6: stays, 7: missed}
    assert registry.reconcile() == (0, 0)


def test_a_container_that_was_removed_is_not_removed_again_by_reconciling() -> None:
    """Its slot stayed, as a task used it, and was freed by the kernel since."""
    slots = FakeSlots()
    registry = Registry(slots)
    ended, lost = slots.enroll(5), slots.enroll(6)
    registry.on_event(create(5, ended, "/rftest-a"))
    registry.on_event(create(6, lost, "/rftest-b"))
    registry.on_event(remove(5, ended))
    assert registry.counts.removed == 1
    for slot in (ended, lost):
        slots.recycled(slot)
    assert registry.reconcile() == (0, 2)
    assert registry.counts.removed == 2


def test_on_free_is_called_before_the_counters_are_cleared() -> None:
    """Exporters of counters read them a last time."""
    slots, freed = FakeSlots(), list[Container]()
    registry = Registry(slots, on_free=lambda container, owned: freed.append(container))
    slot = slots.enroll(5)
    registry.on_event(create(5, slot, "/rftest-a"))
    slots.removed(slot)
    registry.on_event(remove(5, slot))
    assert [container.id for container in freed] == ["rftest-a"]


def test_a_thousand_short_lived_containers_are_all_attributed() -> None:
    """With fewer slots than containers, each event finds its container, and no slot is lost."""
    slots = FakeSlots(size=16)
    registry = Registry(slots)
    alive: list[tuple[int, int]] = []
    for cgroup in range(1, 1001):
        slot = slots.enroll(cgroup)
        registry.on_event(create(cgroup, slot, f"/rftest-{cgroup}"))
        slots.started(slot)
        registry.on_event(start(cgroup, slot))
        alive.append((cgroup, slot))
        if len(alive) == 8:
            old, old_slot = alive.pop(0)
            slots.change(old_slot, tasks=0)
            slots.removed(old_slot)
            registry.on_event(stop(old, old_slot))
            registry.on_event(remove(old, old_slot))
            late = registry.get(old_slot, old)
            assert late is not None
            assert late.id == f"rftest-{old}"
        current = registry.get(slot, cgroup)
        assert current is not None
        assert current.id == f"rftest-{cgroup}"
    assert sum(registry.counts.unattributed.values()) == 0
    assert len(slots.free_slots) == 16 - len(alive)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([create, start, stop, remove]), st.integers(1, 6), st.integers(0, 4)),
        max_size=40,
    )
)
def test_no_order_of_events_breaks_the_table(events: list[tuple[object, int, int]]) -> None:
    """Duplicate, lost and late events: nothing raises, and no slot is freed twice (the fake checks)."""
    slots = FakeSlots(size=4)
    registry = Registry(slots, tombstones=2)
    for cgroup in (1, 2, 3):
        slots.enroll(cgroup)
    for make, cgroup, slot in events:
        if make is remove and slot in slots.values:
            slots.removed(slot)
        registry.on_event(make(cgroup, slot))  # type: ignore[operator]
        registry.get(slot, cgroup)
    registry.sweep()
    assert registry.tombstones <= 2
    assert sorted(slots.free_slots + [slot for slot, _ in slots.used()]) == [0, 1, 2, 3]


def test_the_canary_is_not_a_workload() -> None:
    """The agent's own cgroup is attributed like a container, but neither listed nor counted as one."""
    slots = FakeSlots()
    registry = Registry(slots)
    for number, name in enumerate(("/ringfence-canary-4711.0", f"/docker/{HEX}", "/ringfence-canary-x"), 5):
        registry.on_event(create(number, slots.enroll(number), name))
    assert [container.cgroup_id for container in registry.workloads()] == [6, 7]
    assert registry.counts.created == 2
    assert registry.find(5) is not None
    for number in (5, 6):
        registry.on_event(remove(number, 0))
    assert registry.counts.removed == 1
