# SPDX-License-Identifier: Apache-2.0
"""Ringfence: sees what containers do to the kernel they share, says which one did it, and stops escapes
there."""

__version__ = "0.1.0"
