# SPDX-License-Identifier: Apache-2.0
"""Tools for a source tree: dependencies, the demonstration, measurements, virtual machines."""
