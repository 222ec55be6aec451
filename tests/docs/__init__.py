# SPDX-License-Identifier: Apache-2.0
"""Tests of the pages: what they promise is compared with the program."""
