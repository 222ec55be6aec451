# SPDX-License-Identifier: Apache-2.0
"""The chart on a real Kubernetes, with a kubelet and containerd: `make test-cluster`."""
