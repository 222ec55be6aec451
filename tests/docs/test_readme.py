# SPDX-License-Identifier: Apache-2.0
"""README.md says what the program says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from ringfence.policy.load import load_bytes

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_help_in_the_readme_is_the_programs() -> None:
    """The block after `<!-- help -->` is what `ringfence --help` prints."""
    block = re.search(r"<!-- help -->\n```text\n(.*?)```", README.read_text(), re.S)
    assert block is not None
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    argv = [sys.executable, "-m", "ringfence", "--help"]
    shown = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True).stdout
    assert block[1] == shown


def test_the_policy_in_the_readme_loads() -> None:
    """The example is a valid policy with one rule."""
    block = re.search(r"```yaml\n(.*?)```", README.read_text(), re.S)
    assert block is not None
    (policy,) = load_bytes({"README.md": block[1].encode()}).policies
    assert [rule.id for rule in policy.rules] == ["user-namespace"]
