# SPDX-License-Identifier: Apache-2.0
"""Secrets do not leave the agent; what is no secret stays readable."""

from __future__ import annotations

import re
import time

import pytest

from ringfence.export.redact import HIDDEN, Redactor
from tests.support.receivers import alert

SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    "words",
    [
        ["mysql", "--password=" + SECRET], ["mysql", "--password", SECRET], ["mysql", "-p" + SECRET],
        ["env", "DB_PASSWORD=" + SECRET, "app"], ["env", "AWS_SECRET_ACCESS_KEY=" + SECRET],
        ["curl", "-H", "Authorization: Bearer " + SECRET], ["curl", "-u", "me:" + SECRET, "http://h/"],
        ["curl", "https://me:" + SECRET + "@host/x"], ["curl", "http://h/?api_key=" + SECRET + "&x=1"],
        ["vault", "login", "token=" + SECRET], ["app", "--api-key", SECRET],
        ["app", "--client-secret=" + SECRET],
        ["sh", "-c", "export GITHUB_TOKEN=" + SECRET + "; run"], ["app", '{"password": "' + SECRET + '"}'],
    ],
)  # fmt: skip
def test_arguments_lose_their_secrets(words: list[str]) -> None:
    """Each of the usual ways to hand one over."""
    shown = Redactor().arguments(words)
    assert SECRET not in " ".join(shown)
    assert HIDDEN in " ".join(shown)
    assert shown[0] == words[0]


@pytest.mark.parametrize(
    "text",
    [
        "AKIA" + "ABCDEFGHIJKLMNOP", "ghp_" + "a1" * 18, "xoxb-" + "1234567890-abc", "glpat-" + "x" * 20,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2ln", "-----BEGIN RSA PRIVATE KEY-----MIIE",
    ],
)  # fmt: skip
def test_keys_of_known_forms_are_seen_anywhere(text: str) -> None:
    """In a path, too."""
    assert text not in Redactor().text(f"/tmp/{text}")


@pytest.mark.parametrize(
    "words",
    [
        ["passwd", "root"], ["cat", "/etc/passwd"], ["ls", "-p", "/run/secrets"],
        ["app", "--token-ttl", "30"],
        ["ssh", "-p", "22", "host"], ["mkdir", "-p", "/a/b"], ["python3", "token_bucket.py"],
        ["grep", "password", "file"], ["app", "--user", "me"], ["basic", "usage"],
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(words: list[str]) -> None:
    """An alert must remain readable."""
    assert Redactor().arguments(words) == words


def test_a_record_keeps_what_says_whose_it_is() -> None:
    """Identity, rule and times are untouched; arguments, details and labels are searched."""
    record = alert(details={"text": "PASSWORD=" + SECRET, "api_key": SECRET, "list": ["token: " + SECRET]})
    record["process"]["args"] = ["app", "--token", SECRET]
    record["container"]["labels"] = {"password": SECRET}
    redactor = Redactor()
    clean = redactor.record(record)
    assert SECRET not in str(clean)
    assert {key: clean[key] for key in ("id", "rule", "time")} == {
        key: record[key] for key in ("id", "rule", "time")
    }
    assert clean["process"]["exe"] == record["process"]["exe"]
    assert SECRET in str(record)  # the original is not touched
    assert redactor.redacted == 1
    assert redactor.record(alert()) == alert()
    assert redactor.redacted == 1


def test_patterns_of_ones_own() -> None:
    """A group hides what is in it, a pattern without groups hides all of its match."""
    redactor = Redactor([re.compile(r"card (\d+) of (\d+)"), re.compile(r"SSN-\d+")], defaults=False)
    assert redactor.text("card 12 of 34, SSN-99 PASSWORD=x") == (
        f"card {HIDDEN} of {HIDDEN}, {HIDDEN} PASSWORD=x"
    )


@pytest.mark.parametrize(
    "text", ["a-" * 512, "a" * 1024, "a_token " * 128, "://" * 340, "eyJ" * 340, "pass=" * 200]
)
def test_a_hostile_text_costs_little(text: str) -> None:
    """The texts are the container's: no pattern may run away with the loop."""
    began = time.thread_time()
    Redactor().text(text)
    assert time.thread_time() - began < 0.1
