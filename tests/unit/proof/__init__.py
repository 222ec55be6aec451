# SPDX-License-Identifier: Apache-2.0
"""The judgement of attacks and twins, without a kernel."""
