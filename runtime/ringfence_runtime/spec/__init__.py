# SPDX-License-Identifier: Apache-2.0
"""The OCI configuration as a typed model. Parsing is strict and pure: it touches no file but the one it is
given.
"""

from ringfence_runtime.spec.config import Config, load_config, parse_config, parse_process_file
from ringfence_runtime.spec.resources import Resources, parse_resources

__all__ = ["Config", "Resources", "load_config", "parse_config", "parse_process_file", "parse_resources"]
