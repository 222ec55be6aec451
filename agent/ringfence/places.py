# SPDX-License-Identifier: Apache-2.0
"""The default paths. They are apart from the configuration because the help of each command names them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["DEFAULT_FILE", "DEFAULT_POLICIES", "DEFAULT_SOCKET"]

DEFAULT_FILE = Path("/etc/ringfence/agent.yaml")
DEFAULT_POLICIES = Path("/etc/ringfence/policies")
DEFAULT_SOCKET = Path("/run/ringfence/agent.sock")
