# SPDX-License-Identifier: Apache-2.0
"""The audit's findings about postures, a node's files and versions, and their formats."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ringfence.audit import containers, node
from ringfence.audit.containers import Subject
from ringfence.audit.cves import KERNEL, kernel_version, runtime_cves, unfixed
from ringfence.audit.model import CHECKS, Finding, severity_of
from ringfence.audit.node import Node
from ringfence.audit.report import as_json
from ringfence.audit.survey import parted
from ringfence.config import load
from ringfence.containers.model import Posture, SensitiveMount
from ringfence.containers.posture import scored
from ringfence.daemon.queries.audit import AuditRound
from ringfence_linux.capabilities import NAMES

FENCED = Posture(
    capabilities=("CAP_CHOWN",), bounding=("CAP_CHOWN",), seccomp="filter", user_namespace=True,
    shared_namespaces=(), no_new_privs=True, apparmor="docker-default (enforce)",
)  # fmt: skip
BARE = Posture(
    capabilities=NAMES, bounding=NAMES, seccomp="disabled", user_namespace=False,
    shared_namespaces=("pid", "net", "ipc", "uts", "mnt"), no_new_privs=False, apparmor="unconfined",
    sensitive_mounts=(
        SensitiveMount("runtime-socket", "/run/docker.sock", "/run/docker.sock", False),
        SensitiveMount("host-root", "/", "/host", True), SensitiveMount("host-etc", "/etc", "/e", False),
        SensitiveMount("device", "/dev/sda", "/dev/sda", True),
        SensitiveMount("proc-writable", "proc", "/proc/sys", True),
        SensitiveMount("sysfs-writable", "sysfs", "/sys", True),
        SensitiveMount("cgroup-writable", "cgroup", "/sys/fs/cgroup", True),
        SensitiveMount("host-log", "/var/log", "/logs", True),
        SensitiveMount("kubelet", "/var/lib/kubelet", "/k", True),
        SensitiveMount("host-path", "/usr", "/u", False), SensitiveMount("host-path", "/boot", "/b", True),
    ),
)  # fmt: skip


def ids(posture: Posture, *, root: bool = True, mac: bool = True) -> dict[str, Finding]:
    """Findings by check."""
    subject = Subject("shop/web-0/web", "abc", scored(posture), root)
    return {one.check.id: one for one in containers.findings(subject, mac=mac)}


def test_a_restricted_container_has_no_finding() -> None:
    """A secure container must be possible without findings."""
    assert ids(FENCED) == {}


def test_an_unrestricted_container_has_every_finding() -> None:
    """Each check of the scope container can fail."""
    found = ids(BARE)
    assert set(found) == {check.id for check in CHECKS.values() if check.scope == "container"}
    assert found["privileged"].severity == "critical"
    assert found["runtime-socket"].points == CHECKS["runtime-socket"].score  # read-only means nothing there
    assert found["host-etc"].points == CHECKS["host-etc"].score - 20
    assert found["host-path"].detail == "/boot at /b (writable), and 1 more"
    assert "CAP_SYS_MODULE" in found["strong-capabilities"].detail


def test_a_user_namespace_takes_the_weight_of_capabilities() -> None:
    """They are effective in its own namespace only."""
    inside = ids(Posture(capabilities=("CAP_SYS_ADMIN",), user_namespace=True, seccomp="filter"))
    assert "strong-capabilities" not in inside
    assert "root-without-userns" not in inside
    outside = ids(
        Posture(capabilities=("CAP_SYS_ADMIN",), user_namespace=False, seccomp="filter"), root=False
    )
    assert outside["strong-capabilities"].points == 80
    assert "root-without-userns" not in outside


def test_the_root_of_a_user_namespace_writes_no_setting_of_the_node() -> None:
    """/proc/sys that nothing covers is writable for the node's root only, which is not in there."""
    bare = (SensitiveMount("proc-writable", "proc", "/proc", True),)
    assert "host-proc" in ids(Posture(user_namespace=False, seccomp="filter", sensitive_mounts=bare))
    assert "host-proc" not in ids(Posture(user_namespace=True, seccomp="filter", sensitive_mounts=bare))


def test_without_a_mac_no_container_is_unconfined() -> None:
    """The node has none: that is a finding about the node."""
    assert "unconfined" not in ids(BARE, mac=False)


@pytest.mark.parametrize(
    ("release", "build", "signature", "version", "upstream"),
    [
        ("6.18.44", "#1 SMP", "", (6, 18, 44), True),
        ("6.19.0-rc3+", "#1 SMP", "", (6, 19, 0), True),
        ("6.1.0-18-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.76-1 (2024-02-01)", "", (6, 1, 76), False),
        ("5.15.0-101-generic", "#111", "Ubuntu 5.15.0-101.111-generic 5.15.143", (5, 15, 143), False),
        ("5.14.0-427.el9.x86_64", "#1 SMP", "", None, False),
        ("5.14.21-150500.55.39-default", "#1 SMP PREEMPT_DYNAMIC", "", None, False),
        ("6.1.0-18-amd64", "#1 SMP", "", None, False),
        ("6.1.75-microvm", "#1 SMP", "", (6, 1, 75), False),
        ("nonsense", "", "", None, False),
    ],
)  # fmt: skip
def test_a_kernels_version_is_what_upstream_calls_it(
    release: str, build: str, signature: str, version: tuple[int, ...] | None, upstream: bool
) -> None:
    """Debian and Ubuntu state it; Red Hat does not, and no version is assumed."""
    assert kernel_version(release, build, signature) == (version, upstream)


def node_findings(here: Node) -> list[Finding]:
    """Returns the findings without unexamined facts."""
    return parted(node.findings(here))[0]


def cves(*version: int) -> set[str]:
    """Returns the vulnerabilities of an upstream kernel."""
    return {cve.id for cve in unfixed(version)}


def test_vulnerabilities_are_matched_by_branch() -> None:
    """The stable branch's own fix, branches that ended before it, and the release with the fix."""
    assert "CVE-2022-0847" in cves(5, 15, 24)
    assert "CVE-2022-0847" not in cves(5, 15, 25)
    assert "CVE-2022-0847" in cves(5, 14, 21)  # that branch ended without the fix
    assert "CVE-2022-0847" not in cves(5, 4, 100)  # the hole came with 5.8
    assert "CVE-2024-1086" in cves(6, 1, 75)
    assert "CVE-2024-1086" not in cves(6, 1, 76)
    assert cves(6, 8, 0) == set()
    assert cves(6, 18, 44) == set()


def test_the_table_of_kernels_makes_sense() -> None:
    """A stable branch is between introduction and fix; ids are valid and unique."""
    assert len({cve.id for cve in KERNEL}) == len(KERNEL)
    for cve in KERNEL:
        assert re.fullmatch(r"CVE-\d{4}-\d{4,}", cve.id)
        assert cve.since < cve.mainline
        assert all(cve.since <= branch < cve.mainline for branch in cve.stable)


NOVEMBER = {"CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881"}  # of 2025, published together


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("runc", "runc version 1.1.11\ncommit: v1.1.11-0-g4bccb38c", {"CVE-2024-21626", *NOVEMBER}),
        ("runc", "runc version 1.1.12", NOVEMBER),
        ("runc", "runc version 1.2.8", set()), ("runc", "runc version 1.3.2", NOVEMBER),
        ("runc", "runc version 1.4.0", set()),
        ("runc", "runc version 1.0.0-rc6",
         {"CVE-2019-5736", "CVE-2021-30465", "CVE-2024-21626", *NOVEMBER}),
        ("containerd", "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+b1", set()),
        ("containerd", "containerd containerd.io v1.5.9 abc", {"CVE-2022-23648"}),
        ("crun", "crun version 1.4.3\n", {"CVE-2022-27650"}), ("crun", "crun version 1.8.1", set()),
        ("cri-o", "cri-o 1.23.1", {"CVE-2022-0811"}), ("cri-o", "cri-o 1.23.2", set()),
        ("cri-o", "cri-o 1.18.3", set()), ("cri-o", "cri-o 1.19.5", {"CVE-2022-0811"}),
        ("cri-o", "cri-o 1.24.0", set()), ("containerd", "containerd v1.5.9", {"CVE-2022-23648"}),
        ("runc", "", set()), ("runc", "no version at all", set()), ("other", "other 0.0.1", set()),
    ],
)  # fmt: skip
def test_runtimes_are_known_by_what_they_print(name: str, text: str, expected: set[str]) -> None:
    """The branch's first fixed version counts, and a candidate precedes its release."""
    assert {cve.id for cve, _, _ in runtime_cves(name, text)} == expected


def test_a_distributions_version_has_a_lower_score_and_a_note() -> None:
    """The fix may have been backported: a lower score, and a note."""
    here = Node(
        "n", "6.1.0-17-amd64", "#1 SMP Debian 6.1.69-1", Path("/none"), {"runc": "runc version 1.1.5+ds1"}
    )
    found = {one.detail.split(" ")[0]: one for one in node_findings(here) if one.check.id.endswith("-cve")}
    assert set(found) == {"CVE-2024-1086", "CVE-2024-21626", *NOVEMBER}
    assert all("see its advisory" in one.detail for one in found.values())
    assert {one.severity for one in found.values()} == {"medium"}
    own = {
        one.severity
        for one in node_findings(here._replace(release="6.1.75", build=""))
        if one.check.id == "kernel-cve"
    }
    assert own == {"high"}


TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: {} 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:0947 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
"""


def a_node(directory: Path, **files: str) -> Node:
    """A node with these files."""
    for name, text in files.items():
        path = directory / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Node("n", "6.18.44", "", directory)


@pytest.mark.parametrize(
    ("address", "points"),
    [("00000000:0947", 95), ("0100007F:0947", 75), ("00000000:0948", None), ("0A00000A:0947", 95)],
)  # 0947 is 2375
def test_a_docker_api_on_tcp_is_found(tmp_path: Path, address: str, points: int | None) -> None:
    """Listening, not connected; on the loopback it weighs less."""
    here = a_node(tmp_path, proc__1__net__tcp=TCP.format(address))
    found = [one.points for one in node_findings(here) if one.check.id == "docker-tcp"]
    assert found == ([] if points is None else [points])


def test_every_check_of_a_node_can_be_found(tmp_path: Path) -> None:
    """A node on which every check fails, and one without findings."""
    bad = a_node(
        tmp_path / "bad", proc__1__net__tcp=TCP.format("00000000:0947"),
        proc__1__net__tcp6=TCP.format("0" * 32 + ":280F"),
        proc__sys__kernel__unprivileged_bpf_disabled="0\n", proc__sys__user__max_user_namespaces="1000\n",
        proc__sys__kernel__core_pattern="|/usr/bin/crash %p\n", proc__sys__kernel__kptr_restrict="0\n",
        proc__1__mountinfo="30 1 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
        proc__77__status="Uid:\t0\t0\t0\t0\n", proc__77__comm="kubelet\n",
        proc__77__cmdline="/usr/bin/kubelet\0--anonymous-auth=true\0",
        run__docker__sock="",
    )  # fmt: skip
    socket = tmp_path / "bad/run/docker.sock"
    socket.write_text("")
    socket.chmod(0o666)
    bad = bad._replace(release="5.15.10", runtimes={"runc": "runc version 1.1.0"})
    found = {one.check.id for one in node_findings(bad)}
    found |= {one.check.id for one in node_findings(bad._replace(release="5.14.0-1.el9"))}
    assert found == {check.id for check in CHECKS.values() if check.scope == "node"}
    good = a_node(
        tmp_path / "good", sys__module__apparmor__parameters__enabled="Y\n",
        proc__sys__kernel__unprivileged_bpf_disabled="2\n", proc__sys__user__max_user_namespaces="1000\n",
        proc__sys__kernel__apparmor_restrict_unprivileged_userns="1\n",
        proc__sys__kernel__core_pattern="core\n", proc__sys__kernel__kptr_restrict="1\n",
        proc__1__mountinfo="30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        proc__1__net__tcp=TCP.format("0100007F:0016"),
    )  # fmt: skip
    assert list(node.findings(good)) == []


def test_selinux_that_a_pod_does_not_see_is_not_said_to_be_off(tmp_path: Path) -> None:
    """Its sysfs is without selinuxfs, and the kernel lists it. Seen and permissive, it counts as off."""
    listed = "nodev\tsysfs\nnodev\tselinuxfs\n\text4\n"
    pod = a_node(tmp_path / "pod", proc__filesystems=listed)
    found, unseen = parted(node.findings(pod))
    assert [one for one in found if one.check.id == "no-mac"] == []
    assert [one.check for one in unseen] == ["no-mac"]
    assert node.has_mac(pod.root)
    for enforce, off in (("0", True), ("1", False)):
        seen = a_node(tmp_path / enforce, proc__filesystems=listed, sys__fs__selinux__enforce=enforce)
        assert [one.check.id for one in node_findings(seen)] == ["no-mac"] * off


@pytest.mark.parametrize(
    ("runtimes", "said"),
    [
        ({"containerd": "containerd v1.7.20"}, ["neither runc nor crun"]),
        ({"containerd": "containerd v1.7.20", "runc": ""}, ["the version of runc"]),
        ({"containerd": "containerd v1.7.20", "runc": "runc version 1.4.0"}, []),
        ({}, []),
    ],
)
def test_a_runtime_of_unknown_version_is_unseen(
    tmp_path: Path, runtimes: dict[str, str], said: list[str]
) -> None:
    """k3s keeps its runc elsewhere; a program may end without a word."""
    here = a_node(tmp_path, sys__module__apparmor__parameters__enabled="Y")._replace(runtimes=runtimes)
    found, unseen = parted(node.findings(here))
    assert found == []
    assert [one.check for one in unseen] == ["runtime-cve"] * len(said)
    assert all(word in one.what for word, one in zip(said, unseen, strict=True))


def test_severities_follow_the_score() -> None:
    """Every check has a text, a fix, and ATT&CK ids."""
    assert [severity_of(n) for n in (0, 10, 40, 70, 90, 100)] == [
        "info",
        "low",
        "medium",
        "high",
        "critical",
        "critical",
    ]
    for check in CHECKS.values():
        assert 0 <= check.score <= 100
        assert check.title
        assert check.fix
        assert all(re.fullmatch(r"T\d{4}", technique) for technique in check.attack)


def all_findings() -> list[Finding]:
    """Of a container without fences, with a hostile name."""
    return list(containers.findings(Subject("evil\n\x1b[31m<b>", "abc", scored(BARE), True), mac=True))


def test_json_has_everything_and_breaks_nothing() -> None:
    """The worst first; names escaped."""
    document = as_json(all_findings(), "node-1", 1)
    scores = [one["score"] for one in document["findings"]]
    assert scores == sorted(scores, reverse=True)
    assert sum(document["summary"].values()) == len(scores)
    assert {one["subject"] for one in document["findings"]} == {"evil\\n\\x1b[31m<b>"}
    assert "\x1b" not in json.dumps(document)


def test_a_round_of_the_agent_becomes_metrics() -> None:
    """Only for its containers and this node; a failed round does not end the rounds."""
    made = AuditRound(load(None, {}, {"audit.interval": ["0"], "cri.socket": ["off"]}), list)
    assert [sample for family in made.samples() for sample in family.samples] == []
    made.look()
    samples = {
        (sample.labels["check"], sample.labels["scope"]): sample.value
        for family in made.samples() for sample in family.samples if sample.name == "ringfence_audit_findings"
    }  # fmt: skip
    assert all(scope == "node" for _, scope in samples)
    assert [family.name for family in made.samples()] == [
        "ringfence_audit_findings", "ringfence_audit_accepted", "ringfence_audit_unchecked",
        "ringfence_audit_timestamp_seconds",
    ]  # fmt: skip
