# SPDX-License-Identifier: Apache-2.0
"""Benign work under the whole pack in enforce mode: real programs, with no false positive."""
