# SPDX-License-Identifier: Apache-2.0
"""`ringfence audit`: weaknesses in the configuration of containers and of the node.

It only reads. Findings are about configuration; the agent's other parts observe behaviour.
"""
