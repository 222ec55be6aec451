# SPDX-License-Identifier: Apache-2.0
"""What the agent makes of a verdict: an alert in words, at a bearable rate, and the kill left to it."""
