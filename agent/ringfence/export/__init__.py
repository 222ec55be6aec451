# SPDX-License-Identifier: Apache-2.0
"""What leaves the agent: JSON lines, metrics, HTTP, the local socket, receivers. Nothing here decides
anything."""
