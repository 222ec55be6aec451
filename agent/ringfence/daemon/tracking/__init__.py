# SPDX-License-Identifier: Apache-2.0
"""Which containers and tasks exist, and how they are enrolled."""
