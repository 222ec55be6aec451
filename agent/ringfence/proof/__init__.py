# SPDX-License-Identifier: Apache-2.0
"""Proof that policies do what they say: attacks and their benign twins in throw-away containers.

Behind `ringfence policy test` and tests/escape. Everything that is attacked is made for the test and removed
with it: containers, a process, a cgroup, a socket and a disk image. The agent is a private one, which watches
these containers only.
"""
