# SPDX-License-Identifier: Apache-2.0
"""Runs the pages of docs/tutorials and docs/how-to as a reader does, and compares the output with the page.

A directory takes the place of /etc, and sandboxes have names with the tests' prefix. What cannot run here is
in INSTEAD, with the reason and what the test does in its place.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ringfence import __version__
from ringfence.cli.client import request
from ringfence.config.sample import sample
from tests.chart.helm import CHART
from tests.chart.helm import run as helm
from tests.support.agent import Agent, environment
from tests.support.cgroups import PREFIX
from tests.support.enrolling import NO_NAMES
from tests.support.waiting import end, patience, wait_for

__all__ = ["HOW_TO", "INSTEAD", "PAGES", "ROOT", "Reader", "Step", "follow_page", "runner_of", "steps"]

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs/tutorials").glob("*.md"))
HOW_TO = sorted((ROOT / "docs/how-to").glob("*.md"))
STARTS = ("systemctl enable", "helm install")
#: commands that need a running agent
ASKS = re.compile(
    r"ringfence (run|events|status|doctor|policy list)|systemctl (restart|reload)|journalctl|kubectl .* logs "
)
OWN = f"{PREFIX}tutorial-"
#: names of sandboxes on the pages
NAMED = re.compile(r"(?<![\w/.-])(shop-(?=[*\d])|office-(?=\d)|web(?![\w-]))")
#: differs in each run: times, process ids, the digits of names, the width of columns
VARYING = [(r"\d\d:\d\d:\d\d\.\d+", "TIME"), (r"\[\d+\]", "[PID]"), (r"\bhost-[0-9a-f]{6}\b", "NAME"),
           (r"\s+", " ")]  # fmt: skip
#: how a page says where a part of a rule belongs
ADDED = re.compile(r"Add this to the rule `(\S+)` in `(\S+)`:$")
#: what the journal has besides the agent's lines
OF_SYSTEMD = "Started ringfence-agent.service - Ringfence agent.\n"
SHIM = """\
#!/bin/sh
command="$1"; shift
case "$command" in
run)
  digits=$(od -An -N3 -tx1 /dev/urandom | tr -d ' ')
  case "$*" in *--name*) ;; *) set -- --name "{own}host-$digits" "$@" ;; esac
  set -- --state-root {home}/sandboxes --image-root {home}/images "$@" ;;
agent) set -- --config {home}/etc/agent.yaml --state-dir {home}/agent/state --pins {home}/none "$@" ;;
init | doctor) set -- --config {home}/etc/agent.yaml "$@" ;;
config) shift; set -- show --config {home}/etc/agent.yaml "$@" ;;
esac
exec {python} -m ringfence "$command" "$@"
"""


class Step(NamedTuple):
    """A part of a page: a command, or a file to save, with the output that the page shows of it."""

    line: int
    kind: str  # command, file, rule (keys of a rule), or shown: what a command in the background prints
    text: str
    output: str = ""


def steps(page: str) -> Iterator[Step]:
    """Yields the commands and files of a page, in order."""
    found: list[Step] = []
    before = ""
    pattern = re.compile(r"^```(\w+)\n(.*?)^```$|^    (\S[^\n]*)$|^([^\n]+)$", re.M | re.S)
    for part in pattern.finditer(page):
        line = page.count("\n", 0, part.start()) + 1
        kind, block, command, prose = part.groups()
        if command:
            found.append(Step(line, "command", command))
        elif kind == "yaml" and (more := ADDED.search(before)):
            found.append(Step(line, "rule", block, " ".join(more.groups())))
        elif kind == "yaml":
            found.append(Step(line, "file", block, before.rpartition("Save this as `")[2].split("`")[0]))
        elif kind == "text" and "The second terminal" in before:
            found.append(Step(line, "shown", block))
        elif kind == "text":
            found[-1] = found[-1]._replace(output=block)
        before = f"{before}\n{prose}" if prose else ""
    yield from found


def _plain(text: str) -> str:
    for pattern, word in VARYING:
        text = re.sub(pattern, word, text.replace(OWN, ""))
    return text.strip()


def shows(output: str, wanted: str) -> bool:
    """Returns True if the lines of the page are in the output, in order; `...` ends a line that goes on."""
    lines = iter([_plain(line) for line in output.splitlines()])
    return all(
        any(
            one.startswith(_plain(line)[:-3]) if line.endswith("...") else one == _plain(line)
            for one in lines
        )
        for line in wanted.splitlines()
    )


class Reader:
    """Follows a page."""

    def __init__(self, home: Path) -> None:
        self.home = home
        flags = {"mode": [], "policies": [], "config": str(home / "etc/agent.yaml")}
        self.agent = Agent(home / "agent", policies=[], patterns=NO_NAMES, flags=flags)
        self.followed: list[tuple[Path, subprocess.Popen[bytes]]] = []
        self.values = ["--set", "image.repository=registry.example/ringfence"]
        self.earlier: list[str] = []
        self.mode = ""
        self.pod = ""
        (home / "etc").mkdir()
        (home / "etc/agent.yaml").write_text(sample())
        (home / "bin").mkdir()
        shim = home / "bin/ringfence"
        shim.write_text(SHIM.format(own=OWN, home=home, python=sys.executable))
        shim.chmod(0o755)

    def close(self) -> None:
        """End what the page started."""
        for _, process in self.followed:
            end(process)
        self.agent.stop()

    def follow(self, step: Step) -> None:
        """Do what a part of the page says."""
        text = self._here(step.text)
        if step.kind == "command":
            runner_of(step.text)(self, text, self._here(step.output))
        elif step.kind == "file":
            Path(self._here(step.output)).write_text(text)
        elif step.kind == "rule":
            rule, _, file = self._here(step.output).partition(" ")
            _extend(Path(file), rule, yaml.safe_load(text))
        else:
            wait_for(lambda: any(shows(file.read_text(), text) for file, _ in self.followed), text)

    def _here(self, text: str) -> str:
        text = text.replace("/usr/lib/ringfence/ringfence/_policies", str(ROOT / "policies"))
        return NAMED.sub(rf"{OWN}\1", text.replace("/etc/ringfence/", f"{self.home}/etc/"))

    def _words(self, command: str) -> tuple[list[str], dict[str, str]]:
        found = {"RINGFENCE_SOCKET": str(self.agent.socket), "PATH": f"{self.home}/bin:{os.environ['PATH']}"}
        return ["bash", "-o", "pipefail", "-c", command], {**environment(), **found}

    def _shell(self, command: str) -> tuple[int, str]:
        argv, variables = self._words(command)
        got = subprocess.run(
            argv,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=patience(60),
            check=False,
        )
        return got.returncode, got.stdout

    def run(self, command: str, wanted: str) -> None:
        """A command that ends: it prints what the page shows, or else it succeeds."""
        status, output = self._shell(command)
        assert shows(output, wanted) if wanted else status == 0, f"{command}: {status}\n{output}"

    def ask(self, command: str, wanted: str) -> None:
        """A question about alerts, which may need a moment to arrive. An empty answer is none."""

        def answer() -> bool:
            status, output = self._shell(command)
            return status == 0 and bool(output.strip()) and shows(output, wanted)

        wait_for(answer, f"an answer to {command}, with {wanted!r}", every=0.2)

    def watch(self, command: str, _wanted: str) -> None:
        """A command of the second terminal."""
        file = self.home / f"terminal-{len(self.followed)}"
        argv, variables = self._words(command)
        with file.open("wb") as out:
            process = subprocess.Popen(argv, env=variables, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self.followed.append((file, process))

    def service(self, command: str, _wanted: str) -> None:
        """The service: an agent of the test, which is started, stopped, or sent SIGHUP."""
        if "stop" in command:
            self.agent.stop()
        elif "reload" in command:
            before = request(self.agent.socket, "status")["policies"]["generation"]
            os.kill(self.agent.pid, signal.SIGHUP)
            wait_for(lambda: request(self.agent.socket, "status")["policies"]["generation"] > before, "a set")
        else:
            self.agent.stop()
            self.start()

    def start(self) -> None:
        """Start the agent. /etc/ringfence/policies replaces the bundled policies, as it does by default."""
        own = self.home / "etc/policies"
        named = re.search("^policies:", (self.home / "etc/agent.yaml").read_text(), re.M)
        if own.exists() and not named and str(own) not in self.agent.argv:
            self.agent.argv += ["--policies", str(own)]
        self.agent.start()

    def package(self, command: str, _wanted: str) -> None:
        """The package: its name is checked, and the agent is stopped where it is removed."""
        if "install" in command:
            assert command.split()[-1] == f"./ringfence_{__version__}_amd64.deb"
        else:
            self.agent.stop()

    def journal(self, command: str, wanted: str) -> None:
        """A question to the log of the service, or of a pod: this agent's lines, and one of systemd."""
        lines = "".join(f"{json.dumps(one)}\n" for one in self.agent.records)
        (self.home / "journal").write_text(OF_SYSTEMD + lines)
        asked, bar, rest = command.partition(" | ")
        assert asked.startswith("journalctl -u ringfence-agent -o cat ") or "daemonset/ringfence" in asked
        self.ask(f"cat {self.home}/journal{bar}{rest}", wanted)

    def chart(self, command: str, _wanted: str) -> None:
        """helm: the chart takes these values, and the agent the mode that results."""
        _, verb, release, *rest = shlex.split(command)
        assert release == "ringfence"
        assert ("charts/ringfence" in rest) == (verb in ("install", "upgrade"))
        if verb == "rollback":
            self.values = self.earlier
        elif verb == "install":
            self.values = rest[3:]
        else:
            self.earlier = list(self.values)
            self.values += [one for one in rest[3:] if one != "--reset-then-reuse-values"]
        found = self._objects()
        if verb == "test":
            assert ("Pod", "ringfence-test") in found
        (container,) = found["DaemonSet", "ringfence"]["spec"]["template"]["spec"]["containers"]
        assert container["image"] == f"registry.example/ringfence:{__version__}"
        config = yaml.safe_load(found["ConfigMap", "ringfence"]["data"]["agent.yaml"])
        assert config.get("fail_mode") == ("open" if "config.fail_mode=open" in self.values else None)
        if config["mode"] != self.mode:
            self.mode = config["mode"]
            (self.home / "etc/agent.yaml").write_text(f"mode: {self.mode}\n")
            self.service("restart", "")

    def _objects(self) -> dict[tuple[str, str], Any]:
        return _rendered(tuple(self.values))

    def cluster(self, command: str, wanted: str) -> None:
        """kubectl: the named object is one of the chart's; the command in a container runs in a sandbox."""
        words, _, inner = command.partition(" -- ")
        if "daemonset/" in words:
            assert "daemonset/ringfence" in words.split()
            assert ("DaemonSet", "ringfence") in self._objects()
        if " logs " in words and " | " in words:
            self.journal(command, wanted)
        elif " exec " in words:
            self.ask(inner, wanted)
        elif " run " in words:
            name = f"{OWN}{secrets.token_hex(3)}"
            self.pod = self._shell(f"ringfence run --name {name} --rootfs host {inner}")[1]
        elif wanted:
            assert shows(self.pod, wanted), self.pod


@cache
def _rendered(values: tuple[str, ...]) -> dict[tuple[str, str], Any]:
    got = helm("template", "ringfence", str(CHART), "-n", "ringfence", *values)
    assert got.returncode == 0, got.stderr
    made = [one for one in yaml.safe_load_all(got.stdout) if one]
    return {(one["kind"], one["metadata"]["name"]): one for one in made}


def _extend(file: Path, rule: str, more: dict[str, Any]) -> None:
    """Adds keys to a rule, as a reader does by an editor."""
    documents = list(yaml.safe_load_all(file.read_text()))
    (found,) = (one for policy in documents for one in policy["spec"]["rules"] if one["id"] == rule)
    assert not found.keys() & more.keys()
    found |= more
    file.write_text(yaml.safe_dump_all(documents))


def follow_page(page: Path, reader: Reader) -> None:
    """Does what a page says. The agent runs when the first command needs it, unless the page starts it."""
    parts = list(steps(page.read_text()))
    runs = any(step.text.startswith(STARTS) for step in parts)
    for step in parts:
        try:
            if not runs and step.kind == "command" and ASKS.match(step.text):
                runs = True
                if "restart" not in step.text:
                    reader.start()
            reader.follow(step)
        except AssertionError as error:
            raise AssertionError(f"{page.name}:{step.line}: {error}\n{reader.agent.tail(800)}") from None


Runner = Callable[[Reader, str, str], None]
#: which commands are run, and how
RUNNERS: list[tuple[str, Runner]] = [
    (r"apt install \./ringfence_\S+\.deb", Reader.package),
    (r"apt install --allow-downgrades \./ringfence_\S+\.deb|apt (remove|purge) ringfence", Reader.package),
    (r"systemctl (enable --now|restart|reload|stop) ringfence-agent", Reader.service),
    (r"journalctl -u ringfence-agent -o cat .*", Reader.journal),
    (r"ringfence events --follow", Reader.watch),
    (r"ringfence events (?!--follow).*", Reader.ask),
    (r"ringfence status \| grep .*", Reader.ask),
    (r"ringfence (run|init|doctor|status(?! \|)|policy|config|probe|version) ?.*", Reader.run),
    (r"ringfence agent --uninstall", Reader.run),
    (r"(mkdir -p|sed -i|echo|cp -rT) .*/etc/ringfence/\S+", Reader.run),
    (r"helm (install|upgrade|test|uninstall|history|rollback) ringfence .*", Reader.chart),
    (r"kubectl (-n ringfence )?(create namespace|label namespace|get|delete pod|logs|rollout status) .*"
     r"|kubectl -n ringfence exec daemonset/ringfence -- .*"
     r"|kubectl run try .* -- bash -c .*", Reader.cluster),
]  # fmt: skip

#: what is not run as the page has it: why, and what the test does in its place
INSTEAD: dict[Runner, str] = {
    Reader.package: "no package may be installed on the machine of the tests: the file's name is compared "
    "with this version's, and tests/image/test_deb_service.py installs, upgrades and purges it under systemd",
    Reader.service: "this machine's manager is not asked: an agent of the test starts, reloads and stops; "
    "tests/image/test_deb_service.py does the same under systemd",
    Reader.journal: "a file with the agent's lines takes the place of the journal; the rest of the pipe runs",
    Reader.chart: "no cluster: helm renders this checkout's chart with the values so far, and the agent gets "
    "the mode that results; tests/cluster installs the chart",
    Reader.cluster: "no cluster: the object must be in the rendered chart; a command of the agent's pod is "
    "run, and so is that of another pod in a sandbox; flags are compared with those of a real kubectl",
}


def runner_of(command: str) -> Runner:
    """Returns how a command is run. Raises AssertionError if no test runs it."""
    found = [runner for pattern, runner in RUNNERS if re.fullmatch(pattern, command)]
    assert len(found) == 1, f"no test runs this, or two do: {command}"
    return found[0]
