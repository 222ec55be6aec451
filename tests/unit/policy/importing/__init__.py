# SPDX-License-Identifier: Apache-2.0
"""Translation of the policies of other tools."""
