# SPDX-License-Identifier: Apache-2.0
"""The demonstration: a real agent, real containers, real escape attempts made harmless (`make demo`)."""
