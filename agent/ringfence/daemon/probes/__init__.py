# SPDX-License-Identifier: Apache-2.0
"""Custom probes while the agent runs: starting, stopping, events."""
