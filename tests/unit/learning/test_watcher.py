# SPDX-License-Identifier: Apache-2.0
"""What a run under watch counts as lost."""

from __future__ import annotations

from ringfence.learning.watcher import records_lost


def test_every_loss_on_the_way_to_the_socket_counts() -> None:
    """The kernel's, the decoder's and the stream's; the lines of standard output are read by nobody."""
    lost = {"ring_full": 3, "decode: short": 2, "stream": 5, "output: slow": 70}
    assert records_lost({"lost": lost}) == 10
    assert records_lost({"lost": {}}) == 0
