# SPDX-License-Identifier: Apache-2.0
"""What tests share: skipping with a reason, cgroups, containers and an agent of a test's own."""
