# SPDX-License-Identifier: Apache-2.0
"""Requests to the API server as from a pod: by TLS, with files that the kubelet replaces."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence.config import load
from ringfence.containers.kubernetes.client import ApiError, Client
from ringfence.containers.kubernetes.pods import PodCache
from ringfence.containers.kubernetes.watch import PodWatch
from ringfence.daemon.tracking.pod_sources import api_client, api_server, api_url
from ringfence.errors import ConfigError
from tests.support.apiserver import fake_apiserver, pod
from tests.support.tls import Authority
from tests.support.waiting import wait_for

LIST = "/api/v1/pods?limit=1"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_pod_finds_its_api_server_and_follows_it(tmp_path: Path, host: str) -> None:
    """By the address in its environment, of either family, with the service account's files."""
    authority = Authority(tmp_path)
    (tmp_path / "token").write_text("secret")
    with fake_apiserver(authority.issue([f"IP:{host}"]), host) as fake:
        fake.add(pod(1))
        assert fake.server is not None
        environment = {
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": "1",
            "KUBERNETES_SERVICE_PORT_HTTPS": str(fake.server.server_port),
        }
        files = {"kubernetes.token": [str(tmp_path / "token")], "kubernetes.ca": [str(authority.path)]}
        config = load(None, {}, files)
        assert api_url(config, environment) == fake.url
        cache = PodCache()
        watch = PodWatch(api_client(config, fake.url), "node-1", cache)
        watch.start()
        wait_for(lambda: len(cache) == 1 and watch.up, "the pod")
        watch.close()
        assert fake.requests[0][2]["Authorization"] == "Bearer secret"


def test_without_its_ca_no_request_is_made(tmp_path: Path) -> None:
    """If the file is missing, the system's CA store is not used instead, and the token is not sent."""
    authority = Authority(tmp_path)
    (tmp_path / "token").write_text("secret")
    with fake_apiserver(authority.issue()) as fake:
        client = Client(fake.url, tmp_path / "token", tmp_path / "none.crt")
        with pytest.raises(OSError, match=r"none\.crt"):
            client.get(LIST)
        assert not fake.requests


def test_a_new_ca_and_a_new_token_are_used(tmp_path: Path) -> None:
    """Clusters rotate both; the file has the old and the new CA for a while."""
    old, new, ca, token = (
        Authority(tmp_path, "old"),
        Authority(tmp_path, "new"),
        tmp_path / "ca",
        tmp_path / "t",
    )
    ca.write_text(old.path.read_text())
    token.write_text("one\n")
    with fake_apiserver(old.issue()) as fake:
        client = Client(fake.url, token, ca)
        client.get(LIST)
        assert fake.server is not None
        fake.server.certificate = new.issue()
        with pytest.raises(OSError, match="verify failed"):
            client.get(LIST)
        ca.write_text(old.path.read_text() + new.path.read_text())
        token.write_text("two\n")
        client.get(LIST)
        assert [headers["Authorization"] for _, _, headers in fake.requests] == ["Bearer one", "Bearer two"]


@pytest.mark.parametrize("content", ["a\nb", "ü", "a b", "\x00"])
def test_an_invalid_token_is_not_sent(tmp_path: Path, content: str) -> None:
    """It could inject a header."""
    (tmp_path / "t").write_text(content)
    with fake_apiserver() as fake:
        with pytest.raises(ApiError, match="contains no valid token"):
            Client(fake.url, tmp_path / "t", None).get(LIST)
        assert not fake.requests


def test_a_document_is_cut_nowhere() -> None:
    """One byte too many is an error, and no shorter document."""
    with fake_apiserver() as fake:
        client = Client(fake.url, None, None)
        whole = client.get(LIST)
        assert client.get(LIST, most=len(whole)) == whole
        with pytest.raises(ApiError) as caught:
            client.get(LIST, most=len(whole) - 1)
        assert caught.value.reason == "too_large"


def test_without_an_api_server_nothing_is_followed() -> None:
    """If the configuration requires it, this is an error at start."""
    assert api_server(load(None, {}), {}) == ""
    assert api_url(load(None, {}), {}) == ""
    with pytest.raises(ConfigError, match="no API server is known"):
        api_url(load(None, {}, {"kubernetes.watch": ["on"]}), {})
