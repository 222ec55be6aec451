# SPDX-License-Identifier: Apache-2.0
"""`python -m ringfence` is `ringfence`."""

import sys

from ringfence.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
