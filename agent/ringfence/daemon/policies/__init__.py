# SPDX-License-Identifier: Apache-2.0
"""Loading, installing and reloading policies while the agent runs."""
