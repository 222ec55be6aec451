# SPDX-License-Identifier: Apache-2.0
"""Whether the agent keeps up: back-pressure and the canary."""
