# SPDX-License-Identifier: Apache-2.0
"""The warm launcher: a process with everything loaded that starts the containers of thin clients.

One thread, one poll, no event library. It takes foreground `run` and `exec` of its own user, from processes
in its own namespaces, and nothing else: an engine must be the ancestor of the containers that it detaches,
so those commands are never handed over. A plain `run` is launched by the launcher itself (`plain`), which
leaves no process of ours beside the container; whatever needs the caller's terminal, hooks or more is done
by a worker (`worker`), a fork that runs the cold command's code. All of it is the one launch core,
`ringfence_runtime.launch`.
"""

from __future__ import annotations

from ringfence_runtime.launcher.protocol import SOCKET, decode

__all__ = ["SOCKET", "decode"]
