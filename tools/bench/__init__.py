# SPDX-License-Identifier: Apache-2.0
"""Measurements. `make bench` runs every `*_bench.py` below this directory; `ARGS=--quick` shortens them.

Each has one function, `measure(*, quick: bool) -> Measurement` (see record.py), and leaves nothing behind.
Only figures of one run are compared with each other: machines are shared, and no two runs see the same one.
"""
