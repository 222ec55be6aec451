# SPDX-License-Identifier: Apache-2.0
"""The operations of a launch: what a container's init does, one frozen value for each act.

`sequence.py` puts them in order. Two interpreters execute the same list: the native init, if every
operation can be lowered to its program, otherwise the Python init. `--debug` prints the list.
"""
