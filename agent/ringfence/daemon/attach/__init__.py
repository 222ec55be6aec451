# SPDX-License-Identifier: Apache-2.0
"""What to attach for a set of policies on this node."""
