# SPDX-License-Identifier: Apache-2.0
"""Ringfence's tests: unit, abi, kernel (root), escape (attacks in containers), vm, runtime, lint, bench."""
