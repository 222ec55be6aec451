# SPDX-License-Identifier: Apache-2.0
"""Custom probes without a kernel and without bcc."""
