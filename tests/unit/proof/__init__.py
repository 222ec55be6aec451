# SPDX-License-Identifier: Apache-2.0
"""Judging the results of attacks and twins, without a kernel."""
