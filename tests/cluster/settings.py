# SPDX-License-Identifier: Apache-2.0
"""Command lines and configuration files of the programs of a node. This module starts nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.cluster.build import Programs
from tests.cluster.pki import Pki
from tests.support.cri import PAUSE, containerd_config

__all__ = [
    "API", "CNI", "DIRECTORIES", "DNS", "MOUNTS", "NODE", "PAUSE", "SYSCTLS", "TAINT",
    "api_server", "containerd", "controllers", "etcd", "kubelet", "kubelet_config", "scheduler",
]  # fmt: skip

NODE = "node-1"
SERVICES, PODS = "10.96.0.0/16", "10.99.0.0/24"
API, DNS = "10.96.0.1", "10.96.0.10"  # the first address of SERVICES is that of the service `kubernetes`
TAINT = "ringfence.dev/agent-not-ready"
#: systemd mounts these on a node
MOUNTS = {"/sys/fs/bpf": "bpf", "/sys/kernel/tracing": "tracefs", "/sys/kernel/security": "securityfs"}
#: programs of a node must be able to write these
DIRECTORIES = (
    "/run/containerd", "/run/ringfence", "/run/netns", "/var/lib/kubelet", "/var/lib/cni",
    "/var/lib/ringfence", "/var/log",
)  # fmt: skip
#: the kubelet sets these on its own (pkg/util/sysctl)
SYSCTLS = tuple(
    f"/proc/sys/{name}"
    for name in ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
                 "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes")
)  # fmt: skip
CNI: dict[str, Any] = {
    "cniVersion": "0.4.0", "name": "test",
    "plugins": [{
        "type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]},
    }],
}  # fmt: skip


def containerd(state: Path) -> str:
    """The configuration of the node's containerd."""
    return containerd_config(
        root=f"{state}/containerd", state="/run/containerd", address="/run/containerd/containerd.sock",
        programs="/usr/lib/cni", networks=f"{state}/cni",
    )  # fmt: skip


def etcd(programs: Programs, state: Path) -> list[str]:
    """On the loopback of the node."""
    return [
        programs("etcd"), "--data-dir", str(state), "--listen-client-urls", "http://127.0.0.1:2379",
        "--advertise-client-urls", "http://127.0.0.1:2379", "--listen-peer-urls", "http://127.0.0.1:2380",
        "--unsafe-no-fsync",
    ]  # fmt: skip


def api_server(programs: Programs, pki: Pki) -> list[str]:
    """Listens at the address of its own service, so pods reach it without a proxy."""
    return [
        programs("kube-apiserver"), "--etcd-servers=http://127.0.0.1:2379", "--secure-port=443",
        "--bind-address=0.0.0.0", f"--advertise-address={API}", f"--service-cluster-ip-range={SERVICES}",
        f"--tls-cert-file={pki.path('server.crt')}", f"--tls-private-key-file={pki.path('server.key')}",
        f"--token-auth-file={pki.path('tokens.csv')}", "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-key-file={pki.path('sa.pub')}", "--endpoint-reconciler-type=none",
        f"--service-account-signing-key-file={pki.path('sa.key')}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--kubelet-client-certificate={pki.path('client.crt')}",
        f"--kubelet-client-key={pki.path('client.key')}",
    ]  # fmt: skip


def controllers(programs: Programs, pki: Pki) -> list[str]:
    """All of the default ones."""
    return [
        programs("kube-controller-manager"), f"--kubeconfig={pki.path('controllers.kubeconfig')}",
        f"--service-account-private-key-file={pki.path('sa.key')}", f"--root-ca-file={pki.path('ca.crt')}",
        "--use-service-account-credentials", "--leader-elect=false",
    ]  # fmt: skip


def scheduler(programs: Programs, pki: Pki) -> list[str]:
    """The default profile."""
    return [
        programs("kube-scheduler"),
        f"--kubeconfig={pki.path('scheduler.kubeconfig')}",
        "--leader-elect=false",
    ]


def kubelet(programs: Programs, pki: Pki, directory: Path) -> list[str]:
    """Registers the node with the start-up taint."""
    return [
        programs("kubelet"), f"--config={directory / 'kubelet.json'}",
        f"--kubeconfig={pki.path('kubelet.kubeconfig')}",
        "--container-runtime=remote", "--container-runtime-endpoint=unix:///run/containerd/containerd.sock",
        f"--hostname-override={NODE}", f"--node-ip={API}", f"--register-with-taints={TAINT}=:NoSchedule",
    ]  # fmt: skip


def kubelet_config(pki: Pki) -> dict[str, Any]:
    """Returns its file. A ConfigMap's change reaches
    a pod within `syncFrequency` (usually a minute).
    """
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "authentication": {"x509": {"clientCAFile": pki.path("ca.crt")}, "anonymous": {"enabled": False}},
        "cgroupDriver": "cgroupfs", "failSwapOn": False,
        "clusterDNS": [DNS], "clusterDomain": "cluster.local",
        "enforceNodeAllocatable": [], "readOnlyPort": 0, "syncFrequency": "5s", "resolvConf": "",
        "evictionHard": {"memory.available": "1Mi"}, "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }  # fmt: skip
