# SPDX-License-Identifier: Apache-2.0
"""Proof that policies do what they say: attacks and their lawful twins in throw-away containers.

Behind `ringfence policy test` and tests/escape. Everything aimed at is made here and goes with the test: the
containers, a process, a cgroup, a socket and a disk image; and the agent that is asked is one of its own,
which looks at these containers only.
"""
