# SPDX-License-Identifier: Apache-2.0
"""The agent's response to a verdict: a rate-limited alert, and the kill that is left to user space."""
