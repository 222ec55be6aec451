# SPDX-License-Identifier: Apache-2.0
"""The status page without a browser: its documents, its clients, and its security policy."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from ringfence.config import Listen
from ringfence.errors import Error
from ringfence.export.page import PageServer, html
from tests.support.receivers import alert

HTML = html()


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
    [found] = json.loads(ask(server, "/api/alerts").read())
    assert found["id"] == "ab12cd-1"
    rows = json.loads(ask(server, "/api/containers").read())
    assert (len(rows["containers"]), rows["more"]) == (500, 100)
    for path in ("/page.html", "/../agent.py", "/api/", "/metrics", "/api/status/../x"):
        assert ask(server, path).status == 404
    assert ask(server, "/", "POST").status == 405
    assert ask(server, "/api/policies").status == 503  # the agent is not ready: no trace, no text of it


def test_an_alert_comes_with_its_meaning(server: PageServer) -> None:
    """What receivers say of it: so the page has no rules of its own for what is urgent."""
    [found] = json.loads(ask(server, "/api/alerts").read())
    assert (found["urgency"], found["means"]) == ("warning", "The call was denied before it took effect.")
    assert found["runbook_url"].endswith("/docs/runbooks/escape-denied.md")


def test_the_page_is_one_document() -> None:
    """Style and scripts are in it, in order, and none of them ends it early."""
    assert HTML.count("<script>") == HTML.count("</script>") == 1
    assert HTML.count("<style>") == HTML.count("</style>") == 1
    assert (
        HTML.index("function sync(")
        < HTML.index("function incidentsOf(")
        < HTML.index("async function poll(")
    )
    assert "@media (prefers-color-scheme: dark)" in HTML


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
    links = {"http://www.w3.org/2000/svg", "https://attack.mitre.org/techniques/"}
    assert set(re.findall(r"https?://[^\s\"']+", HTML)) == links
    assert not re.findall(r"<(?:link|img|iframe|object|embed)\b", HTML)
