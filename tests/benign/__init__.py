# SPDX-License-Identifier: Apache-2.0
"""Honest work under the whole pack, enforcing: real programs, and nothing of theirs denied."""
