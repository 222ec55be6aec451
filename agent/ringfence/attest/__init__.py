# SPDX-License-Identifier: Apache-2.0
"""Evidence of confidential machines."""
