# SPDX-License-Identifier: Apache-2.0
"""The container image, built here and run by the project's runtime."""
