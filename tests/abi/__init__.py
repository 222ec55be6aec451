# SPDX-License-Identifier: Apache-2.0
"""The Python mirror of the ABI against what the compiler made of the C."""
