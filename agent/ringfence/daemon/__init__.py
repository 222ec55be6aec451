# SPDX-License-Identifier: Apache-2.0
"""The agent: the one package that knows all the parts, and puts them together."""
