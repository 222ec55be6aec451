# SPDX-License-Identifier: Apache-2.0
"""What the ways to hook system calls cost."""
