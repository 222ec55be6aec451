# SPDX-License-Identifier: Apache-2.0
"""An agent that knows containers only from runtimes, and a policy that one call of a container shows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.agent import Agent, running_agent

__all__ = ["NO_NAMES", "enrolling_agent", "policy"]

POLICY = """
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {{name: {name}}}
spec:
  selector: {selector}
  mode: enforce
  rules:
    - id: {name}-rule
      title: changes how it is executed
      severity: high
      event: personality
      match: {{flags: ADDR_NO_RANDOMIZE}}
      action: kill
"""
#: patterns of an agent that enrolls nothing by its name: it knows only what the runtime reported
NO_NAMES = ("rfnothing-*",)


def policy(directory: Path, name: str, selector: str) -> Path:
    """A policy that kills processes that call `personality`."""
    path = directory / f"{name}.yaml"
    path.write_text(POLICY.format(name=name, selector=selector))
    return path


@contextlib.contextmanager
def enrolling_agent(directory: Path, selectors: Mapping[str, str]) -> Iterator[Agent]:
    """An agent without name patterns, and with a policy of each name and selector; stopped at the end."""
    policies = directory / "policies"
    policies.mkdir(parents=True)
    for name, selector in selectors.items():
        policy(policies, name, selector)
    with running_agent(directory, policies=[policies], patterns=NO_NAMES) as agent:
        yield agent
