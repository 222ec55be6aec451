# SPDX-License-Identifier: Apache-2.0
"""`python -m ringfence_runtime.images`: the same as `ringfence image`."""

from __future__ import annotations

import sys

from ringfence_runtime.images.cli import main

if __name__ == "__main__":
    sys.exit(main())
