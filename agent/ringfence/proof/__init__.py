# SPDX-License-Identifier: Apache-2.0
"""Proof that policies work: attacks and their benign twins in disposable containers.

Used by `ringfence policy test` and tests/escape. Everything that is attacked is created for the
test and removed with it: containers, a process, a cgroup, a socket and a disk image. The agent is
a child of the test and watches these containers only.
"""
