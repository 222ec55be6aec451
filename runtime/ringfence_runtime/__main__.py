# SPDX-License-Identifier: Apache-2.0
"""`python -m ringfence_runtime`."""

import sys

from ringfence_runtime.cli import main

if __name__ == "__main__":
    sys.exit(main())
