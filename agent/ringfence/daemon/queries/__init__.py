# SPDX-License-Identifier: Apache-2.0
"""Answers for the command line and HTTP: status, audit, taint."""
