# SPDX-License-Identifier: Apache-2.0
"""Attacks and their benign twins in real containers, against a real agent."""
