# SPDX-License-Identifier: Apache-2.0
"""The launch core: from a configuration to the workload's first instruction.

`parent` runs outside, `child` inside; both work from the same `Plan`, and talk over one SOCK_SEQPACKET pair.
"""
