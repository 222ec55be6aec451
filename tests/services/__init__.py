# SPDX-License-Identifier: Apache-2.0
"""The agent beside programs of others: Alertmanager, rsyslog, containerd's CRI, a browser."""
