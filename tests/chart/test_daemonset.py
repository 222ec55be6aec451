# SPDX-License-Identifier: Apache-2.0
"""The rendered DaemonSet's pod, run by containerd with the built image, as far as this kernel supports it.

It is ready with five capabilities, stops an attack of another container, is read by its own `helm test`,
takes new policies from a ConfigMap, and hands over to its successor while what it pinned goes on stopping.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chart.helm import Object, by_kind, render
from tests.chart.node import Node, Pod, new_node
from tests.image.build import REFERENCE, image
from tests.support.cgroups import PREFIX, Cgroup, new_cgroup
from tests.support.force import need_program, need_root
from tests.support.waiting import patience, wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.needs("containerd", "ctr", "runc", "unshare")]

ADDRESS = "http://127.0.0.1:9911"
VALUES: dict[str, Any] = {
    "mode": "enforce",
    "image": {"repository": REFERENCE.rpartition(":")[0], "tag": REFERENCE.rpartition(":")[2]},
    "kubernetes": {"watch": False},
    "config": {
        "containers": {"known": False, "patterns": [f"{PREFIX}*"]},
        "cri": {"socket": "off"},
    },
}


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """It has the image."""
    need_root()
    need_program("ctr")
    with new_node(image().archive) as made:
        yield made


def agent_of(objects: list[Object]) -> Object:
    """The DaemonSet's pod."""
    pod: Object = by_kind(objects, "DaemonSet")["spec"]["template"]["spec"]
    return pod


def ask(pid: int, path: str) -> str:
    """Returns the agent's answer at its pod's address; empty: none (yet)."""
    if not pid:
        return ""
    code = f"import urllib.request as u; print(u.urlopen('{ADDRESS}{path}', timeout=60).read().decode())"
    done = subprocess.run(
        ["nsenter", f"--net=/proc/{pid}/ns/net", "--", sys.executable, "-c", code],
        capture_output=True, text=True, check=False, timeout=patience(60),
    )  # fmt: skip
    return done.stdout


def ready(pod: Pod) -> int:
    """Its pid, when /readyz says ok; its own loopback is up then, which a network plugin would do."""

    def look() -> int:
        assert pod.process.poll() is None, pod.text()[-3000:]
        pid = pod.pid
        if pid:
            subprocess.run(
                ["nsenter", f"--net=/proc/{pid}/ns/net", "--", "ip", "link", "set", "lo", "up"], check=False
            )
        return pid if ask(pid, "/readyz").strip() == "ok" else 0

    try:
        return wait_for(look, "the pod to be ready", every=0.2)
    except AssertionError as error:
        raise AssertionError(f"{error}: {pod.text()[-3000:]}") from None


@pytest.fixture
def objects() -> list[Object]:
    """The rendered chart."""
    return render(VALUES)


@pytest.fixture
def pod(node: Node, objects: list[Object]) -> Iterator[Pod]:
    """A ready agent. Its pins are removed afterwards."""
    made = node.run(agent_of(objects), objects, "agent")
    try:
        ready(made)
        yield made
    finally:
        made.remove()
        shutil.rmtree(Path(node.host("/sys/fs/bpf"), "ringfence"), ignore_errors=True)


def attack(cgroup: Cgroup) -> int:
    """A container makes a user namespace; its status."""
    return cgroup.run(["unshare", "-U", "true"], capture_output=True).returncode


def records(pod: Pod) -> list[dict[str, Any]]:
    """The alert lines on its standard output, of which the last may not be whole yet."""
    lines = [line for line in pod.text().rpartition("\n")[0].splitlines() if line.startswith("{")]
    return [one for one in map(json.loads, lines) if one.get("kind") == "alert"]


def test_it_runs_with_five_capabilities_and_stops_an_attack(pod: Pod) -> None:
    """The kernel lists its capabilities; the attack is stopped, and the alert names its container."""
    status = Path(f"/proc/{pod.pid}/status").read_text()
    held = int(next(line for line in status.splitlines() if line.startswith("CapEff")).split()[1], 16)
    assert held == 1 << 39 | 1 << 38 | 1 << 12 | 1 << 19 | 1 << 5
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    with new_cgroup("victim") as cgroup:
        assert attack(cgroup) != 0
        wait_for(lambda: [one for one in records(pod) if one["container"]["id"] == cgroup.name], "the alert")
        found = next(one for one in records(pod) if one["container"]["id"] == cgroup.name)
    assert found["rule"]["id"] == "userns-create"
    assert found["outcome"] in ("denied", "killed")
    assert found["node"] == "node-1", "the name of the pod, not of the node"


@pytest.mark.parametrize("command", ["probe", "status", "audit"])
def test_commands_by_exec_are_no_subjects(node: Node, pod: Pod, command: str) -> None:
    """`kubectl exec ds/ringfence -- ringfence probe` in mode enforce: it calls bpf(2), and is not killed."""
    done = node.ctr("task", "exec", "--exec-id", f"x-{command}", pod.name, "/usr/bin/ringfence", command)
    assert done.returncode in ((0, 1) if command == "audit" else (0,)), done
    assert done.stdout
    assert pod.name not in {one["container"].get("id") for one in records(pod)}


def test_the_charts_own_test_passes(node: Node, pod: Pod, objects: list[Object]) -> None:
    """`helm test`: the pod of the chart attacks, and finds its alert in the metrics."""
    attacker = by_kind(objects, "Pod", "-test")["spec"]
    # This node's agent knows no pods by name.
    names = {"AGENTS": "127.0.0.1", "NAMESPACE": "security", "POD": ""}
    made = node.run(attacker, objects, "test", environment=names, network=pod.pid)
    try:
        assert made.process.wait(patience(60)) == 0, made.text()
        assert "the attack was refused" in made.text()
        assert "an alert of this rule was counted (denied): ok" in made.text()
    finally:
        made.remove()
    # The same with the wrong mode: the test must not pass.
    made = node.run(attacker, objects, "test", environment={**names, "MODE": "audit"}, network=pod.pid)
    try:
        assert made.process.wait(patience(60)) == 1, made.text()
        assert "NOT OK: mode audit, but it was stopped" in made.text()
    finally:
        made.remove()


def test_its_own_test_fails_where_no_agent_knows_the_pod(node: Node, pod: Pod, objects: list[Object]) -> None:
    """Another pod's alert does not count."""
    attacker = by_kind(objects, "Pod", "-test")["spec"]
    names = {"AGENTS": "127.0.0.1", "NAMESPACE": "security", "POD": "rf-test", "SECONDS_TO_WAIT": "3"}
    made = node.run(attacker, objects, "test", environment=names, network=pod.pid)
    try:
        assert made.process.wait(patience(60)) == 1, made.text()
        assert "no agent counted an alert of security/rf-test: NOT OK" in made.text()
    finally:
        made.remove()


def test_new_policies_come_by_the_config_map(node: Node, pod: Pod, objects: list[Object]) -> None:
    """The same pod, another set: the rule is gone, the call passes."""
    with new_cgroup("victim") as cgroup:
        assert attack(cgroup) != 0
        own = """
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: own}
spec:
  selector: {containers: all}
  rules:
    - {id: own-rule, title: x, severity: low, attack: [T1082], event: personality, match: any, action: alert}
"""
        policies = by_kind(objects, "ConfigMap", "-policies")
        node.config_map({**policies, "data": {"own.yaml": own}})
        only = re.compile(r"^ringfence_policies 1(\.0)?$", re.M)
        wait_for(lambda: only.search(ask(pod.pid, "/metrics")), "the new set")
        assert attack(cgroup) == 0


def test_a_pod_that_starts_with_broken_policies_uses_the_last_good_ones_of_the_node(
    node: Node, pod: Pod, objects: list[Object]
) -> None:
    """A new pod, an empty kernel, a ConfigMap with a mistake: attacks are stopped all the same.

    The log, `ringfence status` and the metric of RingfencePolicyRefused say so.
    """
    kept = Path(node.host("/var/lib/ringfence-policies"), "last-good.json")
    wait_for(kept.exists, "the first set to be kept")
    pod.remove()
    shutil.rmtree(Path(node.host("/sys/fs/bpf"), "ringfence"), ignore_errors=True)  # as after a reboot
    policies = by_kind(objects, "ConfigMap", "-policies")
    broken = [one for one in objects if one is not policies]
    broken.append({**policies, "data": {**policies["data"], "own.yaml": "kind: Nonsense\n"}})
    started = node.run(agent_of(objects), broken, "agent")
    try:
        ready(started)
        with new_cgroup("victim") as cgroup:
            assert attack(cgroup) != 0
        assert "last good" in started.text()
        status = node.ctr(
            "task", "exec", "--exec-id", "x-refused", started.name, "/usr/bin/ringfence", "status"
        )
        assert "own.yaml" in status.stdout
        metrics = ask(started.pid, "/metrics")
        assert re.search(r"^ringfence_policy_up_to_date 0(\.0)?$", metrics, re.M)
        node.config_map(policies)
        mended = re.compile(r"^ringfence_policy_up_to_date 1(\.0)?$", re.M)
        wait_for(lambda: mended.search(ask(started.pid, "/metrics")), "the mended set")
    finally:
        started.remove()


def mounted(pid: int, path: str) -> bool:
    """Whether something is mounted there, as that process sees it."""
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return any(line.split()[4] == path for line in lines)


def test_what_the_runtime_unmounts_is_not_held_by_the_agent(node: Node, objects: list[Object]) -> None:
    """A container's root, mounted below the runtime's directory before or after the agent came, goes."""
    directory = Path(node.host("/run/containerd"))

    def mount(*words: str) -> None:
        subprocess.run(["mount", *words], check=True)

    mount("--bind", str(directory), str(directory))
    mount("--make-shared", str(directory))
    early, late = directory / "early", directory / "late"
    made = None
    try:
        for root in (early, late):
            root.mkdir()
        mount("-t", "tmpfs", "rftest", str(early))
        made = node.run(agent_of(objects), objects, "agent")
        pid = ready(made)
        assert mounted(pid, "/run/containerd/early")
        mount("-t", "tmpfs", "rftest", str(late))
        assert mounted(pid, "/run/containerd/late"), "what is mounted later does not arrive"
        for root in (early, late):
            subprocess.run(["umount", str(root)], check=True)
            assert not mounted(pid, f"/run/containerd/{root.name}"), "the agent holds a filesystem"
    finally:
        if made is not None:
            made.remove()
        shutil.rmtree(Path(node.host("/sys/fs/bpf"), "ringfence"), ignore_errors=True)
        for path in (early, late, directory):
            subprocess.run(["umount", "--lazy", str(path)], check=False, stderr=subprocess.DEVNULL)


def pins(node: Node) -> list[str]:
    """Directories of agents that left something in the node's bpffs."""
    base = Path(node.host("/sys/fs/bpf"), "ringfence")
    return sorted(path.name for path in base.iterdir()) if base.is_dir() else []


def test_a_successor_takes_over_while_the_pins_go_on_stopping(
    node: Node, pod: Pod, objects: list[Object]
) -> None:
    """A rolling update in mode enforce: the pinned programs observe the new pod as a container."""
    with new_cgroup("victim") as cgroup:
        assert pod.end() == 0
        assert attack(cgroup) != 0, "nobody runs, and the pins stop nothing"
        left = pins(node)
        successor = node.run(agent_of(objects), objects, "agent")
        try:
            while not ask(successor.pid, "/readyz"):
                assert attack(cgroup) != 0, "a moment without a guard"
                assert successor.process.poll() is None, successor.text()[-3000:]
                subprocess.run(["nsenter", f"--net=/proc/{successor.pid}/ns/net", "--", "ip", "link", "set",
                                "lo", "up"], check=False, stderr=subprocess.DEVNULL)  # fmt: skip
            ready(successor)
            assert attack(cgroup) != 0
            assert "pins were removed" not in successor.text()
            wait_for(lambda: not set(left) & set(pins(node)), "the old pins to go")
            assert attack(cgroup) != 0
        finally:
            successor.remove()


def killed_without_a_ticket(node: Node, pod: Pod) -> None:
    """Its state directory was wiped."""
    os.kill(pod.pid, 9)
    pod.process.wait(patience(60))
    (Path(node.host("/run/ringfence")) / "ticket").unlink()


def test_without_a_ticket_the_pins_stay_and_the_log_has_a_remedy(
    node: Node, pod: Pod, objects: list[Object]
) -> None:
    """An attacker who kills the agent and wipes its state cannot remove the pins; the host's root must."""
    killed_without_a_ticket(node, pod)
    with new_cgroup("victim") as cgroup:
        successor = node.run(agent_of(objects), objects, "agent")
        try:
            assert successor.process.wait(patience(60)) == 3
            assert "there is no ticket for this one" in successor.text()
            assert "remove them on the host" in successor.text()
        finally:
            successor.remove()
        assert attack(cgroup) != 0


def test_without_a_ticket_and_self_defence_the_pins_are_removed_first_and_logged(
    node: Node, objects: list[Object]
) -> None:
    """If the self-defence only alerts, the agent recovers by itself."""
    alerting = {"RINGFENCE_SELF_DEFENCE": "alert"}
    first = node.run(agent_of(objects), objects, "agent", environment=alerting)
    try:
        ready(first)
        killed_without_a_ticket(node, first)
    finally:
        first.remove()
    successor = node.run(agent_of(objects), objects, "agent", environment=alerting)
    try:
        ready(successor)
        assert "its pins were removed at the start" in successor.text()
    finally:
        successor.remove()
        shutil.rmtree(Path(node.host("/sys/fs/bpf"), "ringfence"), ignore_errors=True)


def test_the_canary_sings_in_a_pod(pod: Pod) -> None:
    """Without write access to the root of the cgroups: inside its own."""

    def heard() -> bool:
        found = re.search(r"^ringfence_canary_records_total (\S+)$", ask(pod.pid, "/metrics"), re.M)
        return found is not None and float(found[1]) >= 3

    wait_for(heard, "three canaries")
    assert not [line for line in pod.text().splitlines() if '"cgroup.' in line and '"beat' in line]
