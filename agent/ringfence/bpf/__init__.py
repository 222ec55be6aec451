# SPDX-License-Identifier: Apache-2.0
"""The kernel side as Python sees it: one loaded object, its maps, its rings, its attachments."""
