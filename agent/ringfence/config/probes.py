# SPDX-License-Identifier: Apache-2.0
"""The keys of custom probes."""

from __future__ import annotations

from ringfence.config import values
from ringfence.config.values import Key

__all__ = ["PROBE_KEYS"]

PROBE_KEYS: tuple[Key, ...] = (
    Key("probes.directory", "probes_directory", values.off_or(values.absolute_path), None,
        "custom probes: NAME.c (bcc) with NAME.yaml, compiled on this node; off: none", "off|PATH"),
    Key("probes.headers", "probes_headers", values.choice("btf", "installed"), "btf",
        "what they are compiled against: the kernel's own BTF, or installed kernel headers", "btf|installed"),
    Key("probes.memory", "probes_memory", values.size, 768 << 20,
        "address space of the process that compiles them", "SIZE"),
    Key("probes.timeout", "probes_timeout", values.integer(1, 600), 30,
        "seconds that compiling one may take", "SECONDS"),
)  # fmt: skip
