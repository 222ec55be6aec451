# SPDX-License-Identifier: Apache-2.0
"""Rules on custom probes: every mistake has file, line and column; the kernel is asked nothing of them."""

from __future__ import annotations

import jsonschema
import pytest
import yaml

from ringfence.errors import PolicyError
from ringfence.policy import NodeTiers, compile_policies, load_bytes
from ringfence.policy.explain import explain
from ringfence.policy.probe_rules import FieldWords, ProbeWords
from ringfence.policy.schema import schema

FIELDS = {"latency_us": FieldWords("number"), "disk": FieldWords("text"), "peer": FieldWords("ip")}
PROBES = {
    "probe.slow": ProbeWords("probe.slow", FIELDS, in_task=True),
    "probe.nobody": ProbeWords("probe.nobody", FIELDS, in_task=False),
    "probe.bad": ProbeWords("probe.bad", {}, in_task=False, broken="/p/bad.yaml"),
}
GOOD = """\
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: p}
spec:
  selector: {containers: all}
  rules:
    - id: slow
      title: something was slow
      severity: low
      event: probe.slow
      match: {latency_us: ">= 100", disk: [sda, "nvme*"]}
      exceptions: [{peer: 10.0.0.0/8, why: x}]
      action: kill
    - {id: mount, title: t, severity: low, event: mount, match: {fstype: proc}, action: kill}
"""


def test_they_are_kept_apart_from_those_of_the_kernel() -> None:
    """Both count; only the others are compiled."""
    policies = load_bytes({"p.yaml": GOOD.encode()}, PROBES)
    (policy,) = policies.policies
    assert [rule.id for rule in policy.rules] == ["mount"]
    assert [(rule.id, rule.label, rule.place.line) for rule in policy.probe_rules] == [
        ("slow", "probe.slow", 7)
    ]
    assert policies.rules == 2
    compiled = compile_policies(policies, NodeTiers.usual())
    assert {rule.rule_id for rule in compiled.rules.values()} == {"mount"}
    assert any("slow [low]" in line for line in explain(policies))
    assert any("after the effect" in line for line in explain(policies))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("event: probe.slow", "event: probe.slwo", "10:14: spec.rules[0].event: 'probe.slwo' is not a probe of "
         "this node; did you mean 'probe.slow'?"),
        ("event: probe.slow", "event: probe.bad", "10:14: spec.rules[0].event: probe.bad has errors: "
         "see /p/bad.yaml"),
        ("latency_us:", "latency:", "11:15: spec.rules[0].match: probe.slow has no field 'latency'; did you mean "
         "'latency_us'?"),
        ('">= 100"', "fast", "11:27: spec.rules[0].match.latency_us: must be a number (5), a range"),
        ('">= 100"', "9-1", "11:27: spec.rules[0].match.latency_us: must be a number (5), a range"),
        ('">= 100"', "{any: 5}", "11:27: spec.rules[0].match.latency_us: must be a value, a list of values, or"),
        ("10.0.0.0/8", "ten", "12:27: spec.rules[0].exceptions[0].peer: must be an address"),
        ("{peer: 10.0.0.0/8, why: x}", "{why: x}", "12:20: spec.rules[0].exceptions[0]: is empty"),
        ("action: kill\n    -", "action: deny\n    -", "13:15: spec.rules[0].action: probe.slow reports what has "
         "already happened: use alert or kill"),
        ("event: probe.slow", "event: probe.nobody", "13:15: spec.rules[0].action: probe.nobody does not identify "
         "the task"),
        ("id: mount", "id: slow", "7:7: the rule 'slow' is already defined at p.yaml:14"),
    ],
)  # fmt: skip
def test_a_mistake_has_its_place(old: str, new: str, expected: str) -> None:
    """One message for one mistake."""
    assert old in GOOD
    with pytest.raises(PolicyError) as caught:
        load_bytes({"p.yaml": GOOD.replace(old, new, 1).encode()}, PROBES)
    (problem,) = caught.value.problems
    assert str(problem).startswith(f"p.yaml:{expected}")


def test_without_probes_it_says_where_they_are_looked_for() -> None:
    """The hint of a forgotten configuration."""
    with pytest.raises(PolicyError, match=r"set `probes\.directory`, or use"):
        load_bytes({"p.yaml": GOOD.encode()})


def test_the_schema_takes_them() -> None:
    """And refuses what is wrong for any probe."""
    validator = jsonschema.Draft202012Validator(schema())
    validator.validate(yaml.safe_load(GOOD))
    for old, new in (
        ("action: kill", "action: deny"),
        ("probe.slow", "probe.Slow"),
        ('">= 100"', "{any: 5}"),
    ):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(yaml.safe_load(GOOD.replace(old, new, 1)))
