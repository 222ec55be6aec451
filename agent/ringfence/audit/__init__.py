# SPDX-License-Identifier: Apache-2.0
"""`ringfence audit`: how containers and the node are set up, and what that makes easy for an attacker.

Only reads. Findings are about configuration; what happens is the agent's other half.
"""
