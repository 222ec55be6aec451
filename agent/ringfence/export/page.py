# SPDX-License-Identifier: Apache-2.0
"""The status page: one document of HTML, style and script, and a few small JSON documents. Read-only.

It shows observed text, which is escaped where records are made; the script inserts it as text, never
as markup. The page's Content-Security-Policy allows no other script and loads nothing. Pages of other
sites cannot read it: the Host header must be an address (against DNS rebinding).
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ringfence.config import Listen
from ringfence.errors import Error
from ringfence.export.http_server import Request, Response, Server
from ringfence.export.jsonl import dumps
from ringfence.export.pages import page_of
from ringfence.export.sinks.urgency import runbook_url, urgency

__all__ = ["PageServer", "content_security_policy", "html"]

_SCRIPTS = ("page_text.js", "page_incidents.js", "page.js")  # in this order
_ALERTS, _CONTAINERS = 200, 500
Answer = Callable[[str, Mapping[str, Any]], Any]
Recent = Callable[[str, int], Sequence[Mapping[str, Any]]]


def html() -> str:
    """Returns the page, with its style and its script in it."""

    def read(name: str) -> str:
        return Path(__file__).with_name(name).read_text(encoding="utf-8")

    page = read("page.html").replace("<style></style>", f"<style>{read('page.css')}</style>")
    return page.replace("<script></script>", f"<script>{''.join(map(read, _SCRIPTS))}</script>")


def content_security_policy(page: str) -> str:
    """Returns a policy that allows the page's own script and style, by hash, and JSON from itself."""
    hashes = {}
    for tag in ("script", "style"):
        digests = (
            base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            for text in re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        )
        hashes[tag] = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


class PageServer(Server):
    """`answer` is the local socket's (status, top, policies); `recent` returns the last alerts."""

    def __init__(self, listen: Listen, answer: Answer, recent: Recent) -> None:
        super().__init__(listen, "page", self._at_once, self._document)
        page = html()
        self._html = page.encode()
        self._ask, self._recent = answer, recent
        self._headers = (
            ("Content-Security-Policy", content_security_policy(page)),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cache-Control", "no-store"),
        )
        self._documents: dict[str, Callable[[], Any]] = {
            "/api/status": lambda: self._ask("status", {}),
            "/api/containers": self._containers,
            "/api/alerts": lambda: list(map(_explained, self._recent("alert", _ALERTS))),
            "/api/policies": lambda: self._ask("policies", {}),
        }

    def _containers(self) -> dict[str, Any]:
        rows = self._ask("top", {})["containers"]
        return {"containers": rows[:_CONTAINERS], "more": max(0, len(rows) - _CONTAINERS)}

    def _at_once(self, request: Request) -> Response | None:
        """Answers requests for the page itself; returns None for a document."""
        if not _is_address(request.host):
            return self._respond("421 Misdirected Request", "text/plain", b"use an IP address\n")
        if request.path == "/":
            return self._respond("200 OK", "text/html", self._html)
        if request.path not in self._documents:
            return self._respond("404 Not Found", "text/plain", b"not here\n")
        return None

    def _document(self, request: Request) -> Response:
        try:
            body = dumps(self._documents[request.path]()).encode("utf-8", "backslashreplace")
        except (Error, TimeoutError, KeyError, RuntimeError):
            return self._respond("503 Service Unavailable", "text/plain", b"not available now\n")
        return self._respond("200 OK", "application/json", body)

    def _respond(self, status: str, kind: str, body: bytes) -> Response:
        return Response(status, f"{kind}; charset=utf-8", body, self._headers)


def _explained(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an alert with what receivers say of it: how urgent it is, what it means, the runbook."""
    return {
        **record,
        "urgency": urgency(record),
        "means": page_of(record).sentence,
        "runbook_url": runbook_url(record),
    }


def _is_address(host: str) -> bool:
    """Returns True if `host` is an address: a domain's owner could make its name resolve to this server."""
    bare = re.sub(r":\d{1,5}$", "", host)
    if bare == "localhost":
        return True
    try:
        ipaddress.ip_address(bare.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
