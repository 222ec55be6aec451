# SPDX-License-Identifier: Apache-2.0
"""Taking over from an earlier agent, and preparing for a later one."""
