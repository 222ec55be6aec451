# SPDX-License-Identifier: Apache-2.0
"""The agent's outputs: JSON lines, metrics, HTTP, the local socket, receivers. No decisions are made here."""
