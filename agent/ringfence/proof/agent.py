# SPDX-License-Identifier: Apache-2.0
"""The agent of a campaign: the alerts it reported, and the verdicts that the kernel counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ringfence.child_agent import Ask, ChildAgent

__all__ = ["ProofAgent", "Record"]

Record = dict[str, Any]


class ProofAgent(ChildAgent):
    """An agent with these policies, which watches the cgroups that match the patterns."""

    def __init__(
        self,
        directory: Path,
        ask: Ask,
        *,
        policies: Sequence[Path],
        mode: str,
        patterns: Sequence[str],
        writable: Sequence[Path] = (),
        patience: float = 1.0,
    ) -> None:
        """`patience`: factor by which this machine is slower than usual."""
        flags = ["--mode", mode]
        if patience > 1:
            flags += ["--containers-grace", "30"]
        for path in policies:
            flags += ["--policies", str(path)]
        for pattern in patterns:
            flags += ["--containers-patterns", pattern]
        for path in writable:
            flags += ["--host-files-writable", str(path)]
        super().__init__(directory, ask, flags, seconds=100 * patience)

    def alerts(self, container: str | None, rule: str) -> list[Record]:
        """Returns the alerts of one rule for one container (None: for no container), in order."""
        return [
            record
            for record in list(self.records)
            if record.get("kind") == "alert"
            and (record["container"].get("id") or None) == container
            and (not rule or record["rule"].get("id") == rule)
        ]

    def last_alert(self, container: str | None, rule: str) -> float:
        """Returns the time of day of the last alert of the rule for the container; 0: none."""
        found = self.alerts(container, rule)
        return datetime.fromisoformat(found[-1]["time"]).timestamp() if found else 0.0

    def claims(self) -> Mapping[str, frozenset[tuple[str, str]]]:
        """Returns rule -> {(effective action, mechanism)}, as the agent states them for this node."""
        found: dict[str, frozenset[tuple[str, str]]] = {}
        for row in self.ask("policies"):
            if row["enforced"] == "none":  # a rule without effect here, which claims nothing
                continue
            claim = frozenset({(str(row["enforced"]), str(row["mechanism"]))})
            found[row["rule"]] = found.get(row["rule"], frozenset()) | claim
        return found

    def verdicts(self, container: str) -> Mapping[str, int]:
        """Returns the kernel's verdict counts for a container, without rate limit or delay."""
        for row in self.ask("top")["containers"]:
            if row["id"] == container:
                return {kind: row["counts"][kind] for kind in ("alert", "kill", "deny")}
        return {}
