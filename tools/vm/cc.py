# SPDX-License-Identifier: Apache-2.0
"""`cc.py COMPILER ARGUMENT...`: runs the compiler, without the options that it does not know.

A kernel's headers name the options of the compiler that built it; an older one refuses the newer of them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

UNKNOWN = re.compile(r"error: unrecognized (?:command-line option|argument in option) '([^']+)'")


def main(argv: list[str]) -> int:
    """The compiler's status."""
    environment = {**os.environ, "LC_ALL": "C"}
    while True:
        got = subprocess.run(argv, stderr=subprocess.PIPE, text=True, env=environment, check=False)
        unknown = UNKNOWN.findall(got.stderr)
        known = [word for word in argv if word not in unknown]
        if got.returncode == 0 or len(known) == len(argv):
            sys.stderr.write(got.stderr)
            return got.returncode
        argv = known


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
