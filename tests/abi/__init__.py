# SPDX-License-Identifier: Apache-2.0
"""The Python mirror of the ABI compared with the compiled C."""
