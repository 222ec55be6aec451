# SPDX-License-Identifier: Apache-2.0
"""What the agent makes of a verdict: an alert in words, rate limited, and the kill that is left to it."""
