# SPDX-License-Identifier: Apache-2.0
"""The network of one start: its namespace, its addresses, and the files in the sandbox that name them.

Modules for links are imported only if there are links.
"""

from __future__ import annotations

import os
from typing import Any

from ringfence.sandbox import files
from ringfence.sandbox.network.plan import Plan
from ringfence.sandbox.place import Place, find
from ringfence.sandbox.remove import open_of_init
from ringfence.sandbox.request import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ringfence.sandbox.network.attach import Helper
    from ringfence_runtime.images import Rootfs
    from ringfence_runtime.images.process import ProcessDefaults

__all__ = ["Connection"]


class Connection:
    """See the module."""

    def __init__(self, request: Request, plan: Plan) -> None:
        self.request = request
        self.plan = plan
        self._network: dict[str, Any] = {}
        self._lease: dict[str, Any] = {"addresses": [], "ports": []}
        self._helper: Helper | None = None
        self._joined = -1

    def lease(self, place: Place, defaults: ProcessDefaults | None, warn: Callable[[str], None]) -> None:
        """Leases addresses and ports, if the network has any."""
        if not self.plan.leased:
            return
        from ringfence.sandbox.network import attach
        from ringfence.sandbox.network.ports import Port, exposed, parse

        wanted = [port for text in self.request.publish for port in parse(text)]
        if self.request.publish_all and defaults is not None:
            named = {(port.protocol, port.container) for port in wanted}
            wanted += [p for p in exposed(defaults.ports) if (p.protocol, p.container) not in named]
        self._helper = attach.Helper(place.roots.state, place.name)
        self._network, self._lease = attach.lease(place.roots.state, self.plan, place.name, wanted)
        place.record["addresses"] = self._lease["addresses"]
        place.record["ports"] = [str(Port(*port)) for port in self._lease["ports"]]
        place.save()
        self._forward(warn)

    def _forward(self, warn: Callable[[str], None]) -> None:
        """Warns if the host does not forward packets, which a bridge needs; only the user enables it."""
        from ringfence.sandbox.network import attach

        if self.plan.mode != "bridge" or self.plan.internal:
            return
        for version in sorted({6 if ":" in subnet else 4 for subnet in self._network["subnets"]}):
            if attach.forwards(version):
                continue
            if self.request.forwarding:
                attach.turn_on_forwarding(version)
            else:
                warn(
                    f"this host does not forward IPv{version}: the sandbox reaches only the host and its own"
                    " network (--ip-forward enables it for the whole host)"
                )

    def namespace(self) -> str:
        """Returns `new`, `host`, or the path of another sandbox's namespace."""
        if self.plan.mode == "container":
            # By a descriptor that is open until the start has finished: a pid could be reused.
            if self._joined < 0:
                other = find(self.request.roots, self.plan.name)
                self._joined = open_of_init(other, "ns/net", os.O_RDONLY)
            return f"/proc/self/fd/{self._joined}"
        return "host" if self.plan.mode == "host" else "new"

    def attach(self, pid: int) -> None:
        """Connects the namespace of the process that waits to become the workload."""
        if self._helper is not None:
            self._helper.attach(pid)

    def close(self) -> None:
        """Ends the helper after a failed start."""
        self.forget()
        if self._helper is not None:
            self._helper.close()

    def forget(self) -> None:
        """Closes the joined namespace after the sandbox has its network."""
        if self._joined >= 0:
            os.close(self._joined)
            self._joined = -1

    def files(
        self, place: Place, rootfs: Rootfs, root: int, warn: Callable[[str], None]
    ) -> tuple[tuple[str, str], ...]:
        """Returns (source file, path in the sandbox) of hosts, resolv.conf and hostname."""
        request, mode = self.request, self.plan.mode
        name = request.hostname or place.name[:63]
        if mode == "container":
            other = find(request.roots, self.plan.name)
            hosts, resolver = (files.read(f"{other.directory}/{each}") for each in ("hosts", "resolv.conf"))
        else:
            gateway = next(iter(self._network.get("gateways", ())), "") if mode == "bridge" else ""
            addresses = self._lease["addresses"]
            hosts = files.hosts_text(name, addresses, request.hosts, gateway=gateway, host=mode == "host")
            resolver, reachable = files.resolver_text(
                request.dns, request.dns_search, request.dns_options, mode=mode
            )
            if not reachable and not self.plan.internal:
                warn("this host's name servers are on its own loopback: set one with --dns")
        texts = {"/etc/hosts": hosts, "/etc/resolv.conf": resolver, "/etc/hostname": f"{name}\n"}
        # The host's own root is read-only: missing files cannot be created there.
        there = files.existing(root, list(texts)) if rootfs.read_only else texts
        return tuple((place.write(path.rpartition("/")[2], texts[path]), path) for path in there)
