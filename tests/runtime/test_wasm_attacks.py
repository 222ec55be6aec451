# SPDX-License-Identifier: Apache-2.0
"""What a WebAssembly module tries through host functions while others change files, and what
an agent reports of it.

tests/runtime/test_wasm.py has the attempts that need neither a second process nor an agent.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.conftest import Box
from tests.runtime.hostile import bind, swapping
from tests.runtime.test_wasm import cache, executable, module, wasi  # noqa: F401 (fixtures)
from tests.support.agent import Agent, running_agent
from tests.support.enrolling import NO_NAMES
from tests.support.waiting import patience

pytestmark = [pytest.mark.root]

RULE = """
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: modules}
spec:
  selector: {handler: wasm}
  mode: enforce
  rules:
    - id: secret-of-module
      title: opens a file that no module needs
      severity: high
      event: file.open
      match: {path: "**/rf-forbidden"}
      action: deny
"""


def test_no_link_race_leads_out_of_the_preopened_directories(wasi: Box, tmp_path: Path) -> None:  # noqa: F811
    """A directory and a link to the host alternate in a volume. The link is followed in no single read."""
    volume, host = tmp_path / "volume", tmp_path / "host"
    for directory, text in ((volume / "place", "inside"), (host, "host")):
        directory.mkdir(parents=True)
        (directory / "key").write_text(text)
    # as far up as there may be directories, then to the host's file
    (volume / "other").symlink_to(f"{'../' * 30}{host}")
    bind(wasi, volume, "/data")
    with swapping(volume / "place", volume / "other"):
        got = wasi.args("/attempts.wasm", "race", "/data/place/key").run(timeout=patience(120))
    assert got.returncode == 0, got.stderr
    [counts] = got.stdout.splitlines()  # a line more for each other content
    inside, failed = (int(part.split()[1]) for part in counts.split(","))
    assert inside >= 500
    assert failed >= 500, "the link was never there"


@pytest.fixture(scope="module")
def watching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """An agent with a policy for modules alone."""
    directory = tmp_path_factory.mktemp("watching")
    (directory / "policies").mkdir()
    (directory / "policies" / "modules.yaml").write_text(RULE)
    with running_agent(directory, policies=[directory / "policies"], patterns=NO_NAMES) as agent:
        yield agent


def test_a_policy_for_modules_stops_a_module_and_names_it(
    watching: Agent,
    wasi: Box,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It stops no native program, not even one that has annotations of a module."""
    monkeypatch.setenv("RINGFENCE_ENROLL_SOCKET", str(watching.socket.with_name("enroll.sock")))
    (wasi.rootfs / "rf-forbidden").write_text("key")
    wasi.config["annotations"] = {"run.oci.handler": "wasm-smart", "handler": "wasm"}
    assert wasi.args("/bin/cat", "/rf-forbidden").output() == "key"
    assert not watching.alerts(wasi.name)
    got = wasi.args("/attempts.wasm", "read", "/rf-forbidden").run()
    assert "key" not in got.stdout
    alert = watching.wait_alert("secret-of-module", wasi.name)
    assert alert["container"]["handler"] == "wasm"
    assert alert["outcome"] in ("denied", "killed")
    assert os.fsdecode(alert["details"]["path"]).endswith("rf-forbidden")
