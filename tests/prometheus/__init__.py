# SPDX-License-Identifier: Apache-2.0
"""Rules and dashboards against real Prometheus programs."""
