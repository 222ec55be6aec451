# SPDX-License-Identifier: Apache-2.0
"""A private disk, as the attacks' props have one."""

from __future__ import annotations

from ringfence.proof.fixtures import new_disk

__all__ = ["new_disk"]
