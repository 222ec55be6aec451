# SPDX-License-Identifier: Apache-2.0
"""The keys of custom probes."""

from __future__ import annotations

from ringfence.config import values
from ringfence.config.values import Key

__all__ = ["PROBE_KEYS"]

PROBE_KEYS: tuple[Key, ...] = (
    Key("probes.directory", "probes_directory", values.off_or(values.absolute_path), None,
        "directory of custom probes: pairs of NAME.c (bcc) and NAME.yaml, compiled on this node; off: no"
        " custom probes", "off|PATH"),
    Key("probes.headers", "probes_headers", values.choice("btf", "installed"), "btf",
        "type definitions for compiling custom probes; btf: the running kernel's BTF; installed: installed"
        " kernel headers", "btf|installed"),
    Key("probes.memory", "probes_memory", values.size, 768 << 20,
        "maximum address space of the process that compiles custom probes", "SIZE"),
    Key("probes.timeout", "probes_timeout", values.integer(1, 600), 30,
        "maximum time to compile one custom probe, in seconds", "SECONDS"),
)  # fmt: skip
