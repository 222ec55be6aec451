# SPDX-License-Identifier: Apache-2.0
"""Tests of ringfence.policy without a kernel."""
