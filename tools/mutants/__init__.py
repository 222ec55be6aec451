# SPDX-License-Identifier: Apache-2.0
"""Defects that the tests must notice: a table for the probes, random ones for Python."""
