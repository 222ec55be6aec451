# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus, real Alertmanagers and a webhook that records its calls, on free ports."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.prometheus.rules import FILES
from tests.support.agent import free_port
from tests.support.force import need_program
from tests.support.waiting import end, wait_for

__all__ = ["ONE", "Notification", "Stack", "is_ready", "program", "running_stack"]

#: an Alertmanager that notifies of each alert at once; HOOK is the webhook's address
ONE = """\
route: {receiver: hook, group_by: [alertname], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}
receivers: [{name: hook, webhook_configs: [{url: 'HOOK/', send_resolved: false}]}]
"""


class Notification(NamedTuple):
    """One call of the webhook."""

    at: float  # monotonic time
    path: str
    body: dict[str, Any]


class Stack:
    """Where all answer, and what has come to the webhook."""

    def __init__(self, port: int, managers: Mapping[str, int], notified: list[Notification]) -> None:
        self.port, self.managers, self.notified = port, managers, notified

    @property
    def called(self) -> list[tuple[float, dict[str, Any]]]:
        """Each alert of the notifications so far, with the time."""
        return [(one.at, alert) for one in list(self.notified) for alert in one.body["alerts"]]

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """Returns the result of an instant query; fails if Prometheus rejects it."""
        words = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.port}/api/v1/query?{words}", timeout=10
        ) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found

    def wait_alert(self, name: str, *, seconds: float) -> tuple[float, dict[str, Any]]:
        """Returns when the webhook first got the alert, and the alert."""
        return wait_for(
            lambda: next(((at, one) for at, one in self.called if one["labels"]["alertname"] == name), None),
            f"the webhook to get {name}", seconds=seconds, every=0.05,
        )  # fmt: skip


@contextlib.contextmanager
def running_stack(
    directory: Path, scrape: Mapping[str, Any], managers: Mapping[str, str] | None = None
) -> Iterator[Stack]:
    """Prometheus with the rules that are shipped and one scrape configuration, and an Alertmanager for each
    configuration of `managers`; all ready.
    """
    prometheus, alertmanager = need_program("prometheus"), need_program("prometheus-alertmanager")
    directory.mkdir(parents=True)
    notified: list[Notification] = []
    port, configured = free_port(), managers or {"alertmanager": ONE}
    ports = {name: free_port() for name in configured}
    with contextlib.ExitStack() as stack:
        hook = stack.enter_context(_webhook(notified))
        for name, text in configured.items():
            file = directory / f"{name}.yml"
            file.write_text(text.replace("HOOK", f"http://127.0.0.1:{hook}"))
            stack.enter_context(program(directory, name, [
                alertmanager, f"--config.file={file}", f"--storage.path={directory}/{name}",
                f"--web.listen-address=127.0.0.1:{ports[name]}", "--cluster.listen-address=",
            ]))  # fmt: skip
        (directory / "prometheus.yml").write_text(yaml.safe_dump(_configuration(scrape, ports.values())))
        stack.enter_context(program(directory, "prometheus", [
            prometheus, f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/tsdb",
            f"--web.listen-address=127.0.0.1:{port}",
        ]))  # fmt: skip
        for at in (*ports.values(), port):
            wait_for(partial(is_ready, at), "Prometheus and Alertmanager", every=0.1)
        yield Stack(port, ports, notified)


def _configuration(scrape: Mapping[str, Any], managers: Iterable[int]) -> dict[str, Any]:
    targets = [{"targets": [f"127.0.0.1:{port}" for port in managers]}]
    return {
        "rule_files": list(map(str, FILES)),
        "alerting": {"alertmanagers": [{"static_configs": targets}]},
        "scrape_configs": [dict(scrape)],
    }


def is_ready(port: int) -> bool:
    """Returns True if Prometheus or Alertmanager answers on that port."""
    with contextlib.suppress(OSError):
        return bool(urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=60).status == 200)
    return False


@contextlib.contextmanager
def program(directory: Path, name: str, argv: list[str]) -> Iterator[None]:
    """Runs a program until the end; its output goes to a file of that name."""
    with (directory / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, cwd=directory)
    try:
        yield
    finally:
        end(process)


@contextlib.contextmanager
def _webhook(notified: list[Notification]) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            now = time.monotonic()
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            notified.append(Notification(now, self.path, body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
