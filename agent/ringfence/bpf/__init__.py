# SPDX-License-Identifier: Apache-2.0
"""The kernel side, as Python sees it: one object loaded, its maps, its rings, its attachments."""
