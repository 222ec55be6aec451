# SPDX-License-Identifier: Apache-2.0
"""The table of receivers and the places that cannot import it: configuration keys, chart, documentation."""

from __future__ import annotations

import re
from pathlib import Path

from ringfence.config.keys import KEYS
from ringfence.config.receivers import chat_receivers, http_receivers, syslog_receivers
from ringfence.export.sinks.receivers import RECEIVERS

ROOT = Path(__file__).resolve().parents[4]


def test_every_address_in_the_configuration_is_a_receiver() -> None:
    """A key without a kind would be accepted, and its alerts would silently go nowhere."""
    addresses = {key.path for key in KEYS if key.parse in (chat_receivers, http_receivers, syslog_receivers)}
    assert addresses | {"alerts.file"} == {f"alerts.{name}" for name in RECEIVERS}


def test_the_chart_passes_the_address_of_every_receiver() -> None:
    """All but `file`, which is a path and not an address."""
    helpers = (ROOT / "charts/ringfence/templates/_helpers.tpl").read_text()
    found = re.search(r'define "ringfence\.receiverKinds" -\}\}(.*?)\{\{- end', helpers)
    assert found is not None
    assert {*found[1].split(), "file"} == {*RECEIVERS}


def test_every_receiver_is_documented() -> None:
    """By its key in docs/reference/alerts-out.md."""
    page = (ROOT / "docs/reference/alerts-out.md").read_text()
    assert not [name for name in RECEIVERS if name not in page]
