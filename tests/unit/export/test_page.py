# SPDX-License-Identifier: Apache-2.0
"""The status page without a browser: its documents, its clients, and its security policy."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import ringfence.export.page as module
from ringfence.config import Listen
from ringfence.errors import Error
from ringfence.export.page import PageServer
from tests.support.receivers import alert

HTML = (Path(module.__file__).with_name("page.html")).read_text()


def answer(op: str, request: Mapping[str, Any]) -> Any:
    """The agent's answers, in small."""
    if op == "policies":
        raise Error("not now")
    return {"containers": [{"id": str(n)} for n in range(600)]} if op == "top" else {"op": op}


@pytest.fixture
def server() -> Iterator[PageServer]:
    """On a port of its own."""
    made = PageServer(Listen("127.0.0.1", 0), answer, lambda kind, most: [alert()][:most])
    made.start()
    yield made
    made.close()


def ask(server: PageServer, path: str, method: str = "GET", host: str = "") -> http.client.HTTPResponse:
    """One request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.address.port, timeout=60)
    headers = {"Host": host} if host else {}
    connection.request(method, path, headers=headers)
    return connection.getresponse()


def test_it_serves_one_page_and_small_documents(server: PageServer) -> None:
    """And nothing else: no file of the disk, no other method."""
    assert ask(server, "/").read().decode() == HTML
    assert json.loads(ask(server, "/api/status").read()) == {"op": "status"}
    assert json.loads(ask(server, "/api/alerts").read())[0]["id"] == "ab12cd-1"
    found = json.loads(ask(server, "/api/containers").read())
    assert (len(found["containers"]), found["more"]) == (500, 100)
    for path in ("/page.html", "/../agent.py", "/api/", "/metrics", "/api/status/../x"):
        assert ask(server, path).status == 404
    assert ask(server, "/", "POST").status == 405
    assert ask(server, "/api/policies").status == 503  # the agent is not ready: no trace, no text of it


def test_only_the_pages_own_script_and_style_may_run(server: PageServer) -> None:
    """Hashes of its own content; nothing is loaded from elsewhere; it cannot be framed."""
    for path in ("/", "/api/status", "/nothing"):
        response = ask(server, path)
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    for tag in ("script", "style"):
        [text] = re.findall(rf"<{tag}>(.*?)</{tag}>", HTML, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "", "ringfence", "[::1"])
def test_a_name_that_leads_here_is_not_answered(server: PageServer, host: str) -> None:
    """A page of another site whose name is made to point at this address must not read it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.address.port, timeout=60)
    connection.putrequest("GET", "/api/status", skip_host=True)
    if host:
        connection.putheader("Host", host)
    connection.endheaders()
    assert connection.getresponse().status == 421


@pytest.mark.parametrize("host", ["localhost:9912", "127.0.0.1:9912", "[::1]:9912", "10.1.2.3"])
def test_an_address_is_answered(server: PageServer, host: str) -> None:
    """Whatever address it is reached at."""
    assert ask(server, "/api/status", host=host).status == 200


def test_the_script_makes_no_markup_of_what_it_gets() -> None:
    """No way from a string to elements, and no address of another place in the file."""
    for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", " on"):
        assert word not in re.sub(r"(?s)<!--.*?-->", "", HTML) or word == " on"
    assert not re.findall(r"\son\w+=", HTML)
    assert set(re.findall(r"https?://[^\s\"']+", HTML)) == {"http://www.w3.org/2000/svg"}
    assert not re.findall(r"<(?:link|img|iframe|object|embed)\b", HTML)
