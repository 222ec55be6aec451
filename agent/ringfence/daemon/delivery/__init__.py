# SPDX-License-Identifier: Apache-2.0
"""Outputs for alerts and events, and counters of alerts."""
