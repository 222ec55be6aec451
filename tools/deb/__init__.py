# SPDX-License-Identifier: Apache-2.0
"""Builds the Debian package of the agent and the runtime, from a wheel and with dpkg-deb alone."""
