# SPDX-License-Identifier: Apache-2.0
"""Custom probes: bcc programs of the operator, each with a YAML file. See docs/reference/custom-probes.md.

`read_directory` reads their YAML files, `Workshop` compiles one with bcc in a child process, `Live`
reads its events, `Tally` keeps the metrics derived from them.
"""
