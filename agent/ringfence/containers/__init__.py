# SPDX-License-Identifier: Apache-2.0
"""Which container a task belongs to: cgroups, containers, what runtimes say about them, and their processes.

Nothing here decides about rules, and nothing is guessed: a container that is not known stays unknown, and is
counted.
"""
