# SPDX-License-Identifier: Apache-2.0
"""Attribution of tasks to containers: cgroups, containers, facts from runtimes, and processes.

Nothing here decides about rules, and nothing is guessed: an unknown container stays unknown and is counted.
"""
