# SPDX-License-Identifier: Apache-2.0
"""The container image, made without a daemon from the distribution's packages: a root filesystem, then an
OCI layout. The Dockerfile calls the same code, so both hold the same files. Standard library only."""
