# SPDX-License-Identifier: Apache-2.0
"""The agent with other programs: Alertmanager, rsyslog, containerd's CRI, a browser."""
