# SPDX-License-Identifier: Apache-2.0
"""Whose a task is: cgroups, containers, what the runtimes say of them, and their processes.

Nothing here decides about rules, and nothing here guesses: a container that is
not known stays unknown, and is counted.
"""
