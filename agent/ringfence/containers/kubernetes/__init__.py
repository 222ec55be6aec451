# SPDX-License-Identifier: Apache-2.0
"""Pods: names, images, labels and owners, from the runtime's CRI socket and from the API server's watch.

Neither is in the path of an event, and the agent works without either. No client library: only three unary
gRPC calls and one HTTP stream are needed.
"""
