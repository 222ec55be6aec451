# SPDX-License-Identifier: Apache-2.0
"""An adversary: attacks by class, from three kinds of container, judged by their effect outside."""
