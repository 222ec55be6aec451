# SPDX-License-Identifier: Apache-2.0
"""Defence of the agent itself: protected objects, the watchdog, peers, usermode helpers."""
