# SPDX-License-Identifier: Apache-2.0
"""Virtual machines for tests: distribution kernels under QEMU, above a read-only view of this machine's root.

`python -m tools.vm --help` is the way in. Nothing is installed and no image is built: kernels come as Debian
packages into a cache directory, and the guest sees the host's files through virtiofs. Emulation only (TCG),
so a guest is 8 to 20 times slower than the host.
"""
