# SPDX-License-Identifier: Apache-2.0
"""Attacks on the enforcement, by somebody who has read the code, each with benign twins."""
