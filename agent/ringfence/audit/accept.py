# SPDX-License-Identifier: Apache-2.0
"""Findings that are accepted, each with a reason: the built-in list, and `audit.accept`.

An accepted finding is still shown, with its reason, and counted in a metric of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from ringfence.audit.model import Finding
from ringfence.config.accepted import Acceptance

__all__ = ["BUILTIN", "OWN_REASON", "accept"]

_NETWORK = (
    "privileged", "host-network", "host-path", "host-proc", "host-device", "sysfs-writable", "no-seccomp",
    "strong-capabilities", "root-without-userns", "no-new-privs-off", "unconfined",
)  # fmt: skip
_CNI = (
    "kube-system/calico-node-*/*", "calico-system/calico-node-*/*", "kube-system/cilium-*/*",
    "kube-system/aws-node-*/*", "kube-system/kindnet-*/*", "kube-system/kube-flannel-*/*",
    "kube-flannel/kube-flannel-*/*", "kube-system/canal-*/*", "kube-system/antrea-agent-*/*",
    "kube-system/kube-router-*/*", "kube-system/weave-net-*/*",
)  # fmt: skip
_PROXY = "kube-proxy sets the node's packet filter, so it is privileged in the node's network"
_PLUGIN = "a network plugin sets the node's interfaces, routes and packet filter, and loads programs for them"
OWN_REASON = (
    "the agent itself: it reads the runtime's socket and the processes of the node, and loads programs"
)
#: only in the namespaces of the cluster's own components, and only what such a component needs
BUILTIN = (
    *(Acceptance(check, "kube-system/kube-proxy-*/kube-proxy", _PROXY) for check in _NETWORK),
    *(Acceptance(check, names, _PLUGIN) for names in _CNI for check in _NETWORK),
)


def accept(findings: Iterable[Finding], configured: Sequence[Acceptance], own: str = "") -> Iterator[Finding]:
    """Yields the findings; those that are accepted with the reason. `own`: the agent's own container."""
    every = (*configured, *BUILTIN)
    for finding in findings:
        if own and finding.identifier == own:
            yield finding._replace(accepted=OWN_REASON)
            continue
        reason = next((one.reason for one in every if _covers(one, finding)), "")
        yield finding._replace(accepted=reason)


def _covers(one: Acceptance, finding: Finding) -> bool:
    return one.check == finding.check.id and fnmatchcase(finding.subject, one.names)
