# SPDX-License-Identifier: Apache-2.0
"""Ringfence's OCI runtime: it starts a workload that is already fenced.

Standard library only, and as little of it as possible during a launch: no argparse, json, subprocess,
re, typing, enum or dataclasses is imported between `create` and the workload's first instruction.
"""

__all__ = ["BUILD", "ENGINE", "FALLBACK", "INIT", "OCI_VERSION", "__version__"]

__version__ = "0.1.0"
OCI_VERSION = "1.3.0"
#: the executable that `install` made of native/init.c; empty for an ordinary package
INIT = ""
#: whether Python executes a launch that the native init cannot; `install --no-fallback`, for tests: False
FALLBACK = True
#: the engine for WebAssembly that `install` put beside the executable: its directory, the digest of its
#: files, and the cache of native code; empty without one
ENGINE = ("", "", "")
#: digest of the installed code; empty for an ordinary package
BUILD = ""
