# SPDX-License-Identifier: Apache-2.0
"""The messages of the enrolment protocol: both sides read them equally."""

from __future__ import annotations

import json

import pytest

from ringfence_linux import enroll
from ringfence_linux.enroll import Answer, Request


def test_a_request_arrives_as_it_was_sent() -> None:
    """All fields, by one packet."""
    kinds = [enroll.CGROUP, enroll.CONFIG]
    sent = Request("box", ["shell"], kinds, file="/a\udcff", certain=True, handler=enroll.WASM)
    got = Request.decode(sent.encode(), 2)
    assert [getattr(got, name) for name in Request.__slots__] == [
        getattr(sent, name) for name in Request.__slots__
    ]


def test_optional_fields_have_defaults() -> None:
    """An older runtime may leave them out. Anything but true is uncertain."""
    got = Request.decode(b'{"fds": [], "id": "box", "certain": 1, "handler": "krun"}', 0)
    assert (got.container, got.policies, got.file, got.certain) == ("box", (), "policy", False)
    assert not got.handler


def test_a_request_is_bounded() -> None:
    """Names of policies and the length of a file's name."""
    body = {"id": "box", "fds": [], "policies": ["a"] * 1000, "file": "f" * 10000}
    got = Request.decode(json.dumps(body).encode(), 0)
    assert len(got.policies) == enroll.MAX_POLICIES
    assert len(got.file) == 4096


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "the request is not JSON: "),
        (b"[" * 30000, "the request is not JSON: nested too deeply"),
        (b'{"id": "a", "id": "b", "fds": []}', "appears twice"),
        (b"[]", "does not fit its descriptors"),
        (b'{"fds": ["cgroup"], "id": "x"}', "does not fit its descriptors"),
        (b'{"fds": [], "id": "x", "policies": {"a": 1}}', "are not names"),
        (b'{"fds": [], "id": "x", "policies": [1]}', "are not names"),
    ],
)
def test_a_malformed_request_is_one_error(data: bytes, message: str) -> None:
    """The text is what the agent answers."""
    with pytest.raises(ValueError, match=message):
        Request.decode(data, 0)


def test_an_answer_arrives_as_it_was_sent() -> None:
    """Accepted with its policies; refused with the reason and a hint, within the size of a packet."""
    got = Answer.decode(Answer(ok=True, policies=["shell"]).encode())
    assert (got.ok, got.policies) == (True, ["shell"])
    refused = Answer(ok=False, error="\u20ac" * 100_000, hint="wait").encode()
    assert len(refused) < enroll.MAX_BYTES
    got = Answer.decode(refused)
    assert (got.ok, got.error, got.hint) == (False, "\u20ac" * 8192, "wait")


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"", "the agent ended"), (b"[]", "an answer of another kind"), (b'{"ok": "yes"}', "None")],
)
def test_an_answer_counts_only_if_it_says_true(data: bytes, error: str) -> None:
    """Everything else is a refusal."""
    got = Answer.decode(data)
    assert (got.ok, got.error) == (False, error)
