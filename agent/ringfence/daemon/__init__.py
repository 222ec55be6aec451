# SPDX-License-Identifier: Apache-2.0
"""The agent: the package that knows all the parts and wires them together."""
