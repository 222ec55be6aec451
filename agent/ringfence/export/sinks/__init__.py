# SPDX-License-Identifier: Apache-2.0
"""Alerts out: a queue on disk and a thread for each receiver. Nothing here is on the way of an event."""
