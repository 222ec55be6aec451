# SPDX-License-Identifier: Apache-2.0
"""The agent's configuration: a YAML file, RINGFENCE_* variables and flags; later ones override earlier ones.

Every key is declared once, in KEYS: `http: {listen: X}` in the file, the variable RINGFENCE_HTTP_LISTEN
and the flag `--http-listen` set the same key. All errors are reported at once, each with its location.
An unknown key is an error: a misspelt `mode` must not silently leave a node unprotected. No other file
is read.
"""

from __future__ import annotations

from ringfence.config.keys import KEYS
from ringfence.config.load import load, packaged_policies
from ringfence.config.model import Config, Mode
from ringfence.config.values import Key, Listen

__all__ = [
    "KEYS",
    "Config",
    "Key",
    "Listen",
    "Mode",
    "load",
    "packaged_policies",
]
