# SPDX-License-Identifier: Apache-2.0
"""Translates texts, and asks what the translated rules match."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ringfence.policy import NodeTiers, compile_policies, load_bytes
from ringfence.policy.importing import import_policies
from ringfence.policy.model import Policy, Rule
from ringfence.policy.review import refuse
from ringfence.policy.samples import Sample, rule_matches


class Translated(NamedTuple):
    """The policies, and the remarks without file and column: `LINE: where: message`."""

    policies: tuple[Policy, ...]
    remarks: list[str]
    text: str

    @property
    def rules(self) -> list[Rule]:
        """All rules, in order."""
        return [rule for policy in self.policies for rule in policy.rules]

    def actions(self, one: Sample) -> set[str]:
        """Returns the actions of the rules that match an event."""
        return {rule.action.label for rule in self.rules if rule_matches(rule, one)}

    def says(self, *words: str) -> bool:
        """Returns True if one remark has all the words."""
        return any(all(word in remark for word in words) for remark in self.remarks)


def translated(directory: Path, *texts: str) -> Translated:
    """Translates the texts as files of one import, and loads the result as `policy check` does."""
    files = [directory / f"{number}.yaml" for number, _ in enumerate(texts)]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    found = import_policies(files)
    remarks = [f"{one.line}: {one.where}: {one.message}" for one in found.remarks]
    if not found.rules:
        assert found.policies == ""
        return Translated((), remarks, "")
    policies = load_bytes({"imported.yaml": found.policies.encode()})
    compile_policies(policies, NodeTiers.usual())
    refuse(policies)
    assert policies.rules == found.rules
    return Translated(policies.policies, remarks, found.policies)
