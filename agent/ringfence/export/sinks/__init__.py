# SPDX-License-Identifier: Apache-2.0
"""Delivery of alerts: a queue on disk and a thread for each receiver, off the path of events."""
