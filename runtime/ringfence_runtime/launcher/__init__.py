# SPDX-License-Identifier: Apache-2.0
"""The warm launcher: a process with everything loaded that starts the containers of thin clients.

It has one thread and one poll, and no event library. It takes foreground `run` and `exec` of its own
user, from processes in its own namespaces, and nothing else: an engine must be the ancestor of the
containers that it detaches, so those commands are never sent to it. The launcher itself launches a
plain `run` (`inline_run`), with no runtime process next to the container. A worker (`worker`), a fork
that runs the cold command's code, executes a command that needs the caller's terminal, hooks or more.
All of them use the same launch core, `ringfence_runtime.launch`.
"""

from __future__ import annotations

from ringfence_runtime.launcher.protocol import SOCKET, decode

__all__ = ["SOCKET", "decode"]
