# SPDX-License-Identifier: Apache-2.0
"""The digest of a set of policies: equal for equal content, on any node."""

from __future__ import annotations

from pathlib import Path

from ringfence.policy import load_policies

ONE = """\
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: NAME}
spec:
  selector: {containers: all}
  mode: enforce
  rules:
    - {id: NAME-mount, title: A mount, severity: high, event: mount, match: {fstype: ext4}, action: ACTION}
"""


def digest(directory: Path, **files: str) -> str:
    """The digest of these files in a directory of their own."""
    directory.mkdir()
    for name, text in files.items():
        (directory / f"{name}.yaml").write_text(text)
    return load_policies([directory]).digest


def text(name: str, action: str = "deny") -> str:
    """A policy with one rule."""
    return ONE.replace("NAME", name).replace("ACTION", action)


def test_nodes_with_the_same_policies_have_the_same_digest(tmp_path: Path) -> None:
    """Whatever their files are called, in which order they are read, and what comments say."""
    here = digest(tmp_path / "here", a=text("mounts"), b=text("sockets"))
    there = digest(tmp_path / "there", z=text("mounts"), y="# a comment\n" + text("sockets"))
    joined = digest(tmp_path / "joined", all=text("sockets") + "---\n" + text("mounts"))
    assert here == there == joined
    assert len(here) == 12


def test_a_change_of_one_word_changes_the_digest(tmp_path: Path) -> None:
    """An action, and a policy that is missing."""
    whole = digest(tmp_path / "whole", a=text("mounts"), b=text("sockets"))
    assert whole != digest(tmp_path / "other", a=text("mounts", "alert"), b=text("sockets"))
    assert whole != digest(tmp_path / "less", a=text("mounts"))


def test_a_set_without_policies_has_no_digest() -> None:
    """Nothing is in force: there is nothing to compare."""
    assert load_policies([]).digest == ""
