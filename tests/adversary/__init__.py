# SPDX-License-Identifier: Apache-2.0
"""Attacks by someone who has read the code, each with benign twins."""
