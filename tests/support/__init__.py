# SPDX-License-Identifier: Apache-2.0
"""Shared by tests: skipping with a reason, private cgroups, containers and agents."""
