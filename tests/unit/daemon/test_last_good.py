# SPDX-License-Identifier: Apache-2.0
"""A start with broken policies uses the last good set of the node, and says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence.config import Config, load
from ringfence.daemon.policies.last_good import LastGood
from ringfence.daemon.policies.manager import load_first
from ringfence.errors import PolicyError
from ringfence.policy import NodeTiers, load_policies
from tests.unit.daemon.test_policy_manager import POLICY

GOOD, BROKEN = POLICY.format(name="first"), "apiVersion: nonsense\n"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """One directory with one policy, and a place to keep it."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/a.yaml").write_text(GOOD)
    flags = {"policies": [str(tmp_path / "policies")], "policies_kept": [str(tmp_path / "disk/kept.json")]}
    return load(None, {}, flags)


def keep(config: Config) -> None:
    """What an agent does when its set is in force."""
    digest = load_policies(config.policies).digest
    LastGood(config.policies_kept).keep(config.policies, digest, {})


def break_files(config: Config) -> None:
    """A mistake in the file."""
    (config.policies[0] / "a.yaml").write_text(BROKEN)


def test_a_start_with_broken_policies_uses_the_set_that_was_kept(config: Config) -> None:
    """With its digest, and with the problems of the files."""
    good = load_first(config, NodeTiers.usual())
    assert not good.problems
    keep(config)
    break_files(config)
    used = load_first(config, NodeTiers.usual())
    assert used.compiled.policies.digest == good.compiled.policies.digest
    assert [policy.name for policy in used.compiled.policies.policies] == ["first"]
    assert any("a.yaml:1" in problem for problem in used.problems)
    assert config.policies_kept is not None
    assert config.policies_kept.stat().st_mode & 0o777 == 0o600


def test_without_a_kept_set_a_broken_one_is_refused(config: Config) -> None:
    """As before: the agent ends with the problems."""
    break_files(config)
    with pytest.raises(PolicyError, match="'kind' is missing"):
        load_first(config, NodeTiers.usual())


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"a": 1}', b'{"a.yaml": "nonsense: ["}', b"\xff", b"[" * 100_000]
)
def test_a_damaged_kept_set_is_no_policy(config: Config, data: bytes) -> None:
    """It is never half used: the files' own problems are reported."""
    assert config.policies_kept is not None
    config.policies_kept.parent.mkdir()
    config.policies_kept.write_bytes(data)
    break_files(config)
    with pytest.raises(PolicyError, match="'kind' is missing"):
        load_first(config, NodeTiers.usual())


def test_a_link_in_place_of_the_kept_set_is_not_followed(config: Config, tmp_path: Path) -> None:
    """Somebody else's file must not become policy."""
    keep(config)
    assert config.policies_kept is not None
    config.policies_kept.rename(tmp_path / "elsewhere")
    config.policies_kept.symlink_to(tmp_path / "elsewhere")
    break_files(config)
    with pytest.raises(PolicyError):
        load_first(config, NodeTiers.usual())


def test_files_that_changed_meanwhile_are_not_kept(config: Config) -> None:
    """Only a set that was in force is good."""
    digest = load_policies(config.policies).digest
    (config.policies[0] / "a.yaml").write_text(POLICY.format(name="second"))
    LastGood(config.policies_kept).keep(config.policies, digest, {})
    assert config.policies_kept is not None
    assert not config.policies_kept.exists()


def test_a_disk_that_cannot_be_written_costs_the_copy_only(config: Config, tmp_path: Path) -> None:
    """The agent goes on; its log says that nothing is kept."""
    (tmp_path / "disk").write_text("a file where the directory should be")
    keep(config)
    assert load_first(config, NodeTiers.usual()).compiled.policies.digest
