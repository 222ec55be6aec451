# SPDX-License-Identifier: Apache-2.0
"""`ringfence doctor`, `init` and `config show`."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ringfence import __version__
from ringfence.abi import Mechanism
from ringfence.bpf import privileges
from ringfence.bpf.capabilities import Lack, NodeCapabilities
from ringfence.cli.main import main
from ringfence.config import KEYS, load
from tests.unit.cli.terminal import agent

NODE = NodeCapabilities(
    kernel="6.12.0", machine="x86_64", libbpf=(1, 5), permitted=True, btf=True, ring_buffer=True,
    tracefs=True, lsm_hooks=frozenset(("file_open",)), hook_mechanism=Mechanism.LSM,
)  # fmt: skip


@pytest.fixture(autouse=True)
def node(monkeypatch: pytest.MonkeyPatch) -> NodeCapabilities:
    """A node where everything is well, and no variables of this project's tests."""
    for name in os.environ:
        if name.startswith("RINGFENCE_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(NodeCapabilities, "detect", lambda *_: NODE)
    monkeypatch.setattr(privileges, "held", lambda: frozenset(range(64)))
    return NODE


def doctor(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and the findings by their subject."""
    code = main(["doctor", "-o", "json", *words])
    return code, {one["subject"]: one for one in json.loads(capsys.readouterr().out)}


def test_a_node_without_an_agent_needs_its_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It can run, so the exit code is 0."""
    code, found = doctor(capsys, "--socket", str(tmp_path / "none.sock"))
    assert code == 0
    assert {name: one["level"] for name, one in found.items() if name != "cgroups"} == {
        "kernel": "ok", "rights": "ok", "stopping": "ok", "config": "ok", "policies": "note",
        "runtimes": "ok", "agent": "note",
    }  # fmt: skip
    assert "systemctl enable --now ringfence-agent" in found["agent"]["change"]


@pytest.mark.parametrize(
    ("status", "level", "text"),
    [
        ({"version": __version__, "problems": []}, "ok", "ready"),
        ({"version": "0.0.1", "problems": []}, "note", f"this command is {__version__}"),
        ({"version": __version__, "problems": ["events were lost"]}, "note", "events were lost"),
    ],
)
def test_a_running_agent_is_examined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], status: dict[str, Any], level: str, text: str
) -> None:
    """Its version and its problems."""
    with agent(tmp_path, lambda request: {"pid": 7, "mode": "audit", **status}) as path:
        code, found = doctor(capsys, "--socket", str(path))
    assert (code, found["agent"]["level"]) == (0, level)
    assert text in found["agent"]["text"]


@pytest.mark.parametrize(
    ("change", "code", "subject", "advice"),
    [
        ({"permitted": False}, 4, "rights", "use sudo"),
        ({"lacks": (Lack("no BTF", "CONFIG_DEBUG_INFO_BTF"),)}, 3, "kernel", "CONFIG_DEBUG_INFO_BTF"),
        ({"lsm_hooks": frozenset(), "lsm_lack": "bpf is not in lsm="}, 0, "stopping", "CONFIG_BPF_LSM"),
    ],
)
def test_what_is_missing_has_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any], code: int, subject: str, advice: str,
) -> None:  # fmt: skip
    """With the exit code that `probe` has, too."""
    monkeypatch.setattr(NodeCapabilities, "detect", lambda *_: replace(NODE, **change))
    ended, found = doctor(capsys, "--socket", str(tmp_path / "none.sock"))
    assert ended == code
    assert advice in found[subject]["change"]


def test_an_invalid_configuration_is_the_last_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing can be said of its policies; the exit code is that of such a file."""
    (tmp_path / "agent.yaml").write_text("mode: enforc\nhttpp: {}\n")
    code, found = doctor(capsys, "--config", str(tmp_path / "agent.yaml"))
    assert code == 2
    assert list(found)[-1] == "config"
    assert "'enforc' is not one of" in found["config"]["text"]
    assert "and 1 more" in found["config"]["text"]


def test_the_report_is_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten lines at most, before what to change."""
    assert main(["doctor", "--socket", str(tmp_path / "none.sock")]) == 0
    text = capsys.readouterr().out
    assert len(text.partition("\n\nto change:")[0].splitlines()) <= 10
    assert "  1. " in text


@pytest.fixture
def no_agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No agent of this machine is asked."""
    monkeypatch.setenv("RINGFENCE_SOCKET", str(tmp_path / "none.sock"))


@pytest.mark.usefixtures("no_agent")
@pytest.mark.parametrize("mode", ["audit", "enforce", "policy"])
def test_init_writes_a_file_that_sets_only_the_mode(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    """Every key is in it; it says what the node offers."""
    file = tmp_path / "new" / "agent.yaml"
    assert main(["init", "--config", str(file), "--mode", mode]) == 0
    shown = capsys.readouterr().out
    assert f"wrote {file}: mode {mode}" in shown
    assert "stopping" in shown
    assert load(file, {}) == load(None, {"RINGFENCE_MODE": mode})._replace(file=file)
    text = file.read_text()
    assert all(f"{key.path.rpartition('.')[2]}:" in text for key in KEYS)
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.usefixtures("no_agent")
def test_init_keeps_an_existing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unless it is forced."""
    file = tmp_path / "agent.yaml"
    file.write_text("mode: enforce\n")
    assert main(["init", "--config", str(file)]) == 2
    assert "--force replaces it" in capsys.readouterr().err
    assert file.read_text() == "mode: enforce\n"
    assert main(["init", "--config", str(file), "--force"]) == 0
    assert load(file).mode == "audit"


def test_init_reports_a_directory_that_is_no_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In two lines."""
    (tmp_path / "file").touch()
    assert main(["init", "--config", str(tmp_path / "file" / "agent.yaml")]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_init_reports_a_read_only_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In two lines, with the file and a way out; tests/image/test_deb_service.py has a real one."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "write_text", refuse)
    file = tmp_path / "agent.yaml"
    assert main(["init", "--config", str(file)]) == 2
    said = f"ringfence: error: {file}: Read-only file system\nhint: --config names another file\n"
    assert capsys.readouterr().err == said


def test_config_show_has_each_value_with_its_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable overrides the file; of a receiver's address only the server is shown."""
    file = tmp_path / "agent.yaml"
    file.write_text("mode: enforce\nhttp: {listen: 127.0.0.1:1234}\n"
                    "alerts: {slack: ['https://hooks.slack.com/services/T0/B0/SECRET']}\n")  # fmt: skip
    monkeypatch.setenv("RINGFENCE_MODE", "audit")
    assert main(["config", "show", "--config", str(file), "-o", "json"]) == 0
    text = capsys.readouterr().out
    found = json.loads(text)
    assert list(found) == [key.path for key in KEYS]
    assert found["mode"] == {"value": "audit", "from": "RINGFENCE_MODE"}
    assert found["http.listen"] == {"value": "127.0.0.1:1234", "from": str(file)}
    assert found["health.listen"]["from"] == "default"
    assert found["alerts.slack"]["value"] == ["https://hooks.slack.com/..."]
    assert "SECRET" not in text
    assert main(["config", "show", "--config", str(file), "--changed"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["KEY", "mode", "http.listen", "alerts.slack"]


def test_the_shown_values_are_those_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is shown of the defaults, written into a file, gives the defaults."""
    assert main(["config", "show", "-o", "json"]) == 0
    shown = {path: one["value"] for path, one in json.loads(capsys.readouterr().out).items()}
    flags = {key.path: shown[key.path] if key.many else [shown[key.path]] for key in KEYS if shown[key.path]}
    assert load(None, {}, flags) == load(None, {})
