# SPDX-License-Identifier: Apache-2.0
"""What agent and runtime both need of Linux: system calls, /proc, cgroups, names, the enrolment protocol.

Below both packages, and on the standard library alone. The runtime measures its start-up, so modules
import only `os` and built-in ones (`_struct`, `_socket`, `_json`). The first system call loads ctypes.
"""
