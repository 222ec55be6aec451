# SPDX-License-Identifier: Apache-2.0
"""One launch core: what happens between a configuration and the workload's first instruction.

`parent` runs outside, `child` inside; both work from the same `Plan`, and they talk over one SOCK_SEQPACKET
pair.
"""
