# SPDX-License-Identifier: Apache-2.0
"""Policies for agents under test: the project's own, and one rule that is easy to trigger."""

from __future__ import annotations

from pathlib import Path

__all__ = ["PACK", "USERNS", "one_rule", "user_namespace", "written"]

PACK = Path(__file__).resolve().parents[2] / "policies"


def user_namespace(name: str = "test", *, action: str = "kill", severity: str = "high") -> str:
    """Returns a policy with the rule `NAME-user-namespace`,
    which `unshare -U` in a container triggers.
    """
    return f"""
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {{name: {name}}}
spec:
  selector: {{containers: all}}
  mode: enforce
  rules:
    - id: {name}-user-namespace
      title: A container makes a user namespace
      severity: {severity}
      attack: [T1611]
      event: unshare
      match: {{flags: [CLONE_NEWUSER]}}
      action: {action}
"""


def one_rule(name: str, rule: str) -> str:
    """Returns a policy for all containers with one rule, given as YAML of one line."""
    return f"""\
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {{name: {name}}}
spec:
  selector: {{containers: all}}
  rules:
    - {rule}
"""


#: kills a container that makes a user namespace
USERNS = one_rule(
    "users",
    "{id: userns-create, title: x, severity: high, attack: [T1611], event: unshare,"
    " match: {flags: CLONE_NEWUSER}, action: kill}",
)


def written(directory: Path, *documents: str) -> Path:
    """Write these to `test.yaml` in a new directory below. Returns the directory."""
    policies = directory / "policies"
    policies.mkdir()
    (policies / "test.yaml").write_text("---\n".join(documents))
    return policies
