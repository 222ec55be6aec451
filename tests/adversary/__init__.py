# SPDX-License-Identifier: Apache-2.0
"""Attacks by somebody who has read the code, class by class, with benign twins."""
