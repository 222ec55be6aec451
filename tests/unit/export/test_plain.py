# SPDX-License-Identifier: Apache-2.0
"""Details of a record as JSON values."""

from __future__ import annotations

import json

from ringfence.export.records import plain


def test_text_is_escaped_at_any_depth() -> None:
    """In lists and in mappings, keys included: what a container chose reaches no terminal unchanged."""
    deep = {"a\x1b[2J": [{"b": b"\xff\x1b", "n": 3}, ("c\n", None)]}
    got = plain(deep)
    assert json.loads(json.dumps(got)) == {
        "a\\x1b[2J": [{"b": "\\xff\\x1b", "n": 3}, ["c\\n", None]],
    }
