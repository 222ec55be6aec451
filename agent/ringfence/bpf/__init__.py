# SPDX-License-Identifier: Apache-2.0
"""Python interface to the kernel side: one loaded object, its maps, its rings, its attachments."""
