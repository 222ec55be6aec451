# SPDX-License-Identifier: Apache-2.0
"""The operator's own probes: bcc programs with a YAML beside them. See docs/custom-probes.md.

`read_directory` reads what they say of themselves, `compile_probe` has bcc compile one in a process of its
own, `Live` reads its events, `Tally` keeps the metrics that are derived from them.
"""
