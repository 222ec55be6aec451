# SPDX-License-Identifier: Apache-2.0
"""Lost records of an observed run."""

from __future__ import annotations

from ringfence.learning.watcher import records_lost


def test_every_loss_on_the_way_to_the_socket_counts() -> None:
    """Losses of the kernel, the decoder and the stream, but not of lines on standard output."""
    lost = {"ring_full": 3, "decode: short": 2, "stream": 5, "output: slow": 70}
    assert records_lost({"lost": lost}) == 10
    assert records_lost({"lost": {}}) == 0
