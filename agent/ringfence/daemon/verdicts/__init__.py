# SPDX-License-Identifier: Apache-2.0
"""The path of a verdict, from a record of the ring to the outputs."""
