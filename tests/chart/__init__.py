# SPDX-License-Identifier: Apache-2.0
"""The Helm chart: rendered by helm, checked against the schemas of Kubernetes, run by containerd."""
