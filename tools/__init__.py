# SPDX-License-Identifier: Apache-2.0
"""What is used in a source tree only: installing dependencies, the demonstration."""
