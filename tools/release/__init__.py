# SPDX-License-Identifier: Apache-2.0
"""Builds every file of a release into one directory. Publishes nothing."""
