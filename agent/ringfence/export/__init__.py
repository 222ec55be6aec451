# SPDX-License-Identifier: Apache-2.0
"""What leaves the agent: JSON lines, metrics, the local socket. Nothing here decides anything."""
