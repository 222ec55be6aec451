# SPDX-License-Identifier: Apache-2.0
"""Facts in an OCI bundle: config.json (runtime-spec) and the annotations of engines.

The author of an image or a pod can set annotations: they are names for display, never proof.
"""

from __future__ import annotations

from typing import Any

from ringfence.containers.enrich import mounts, safejson
from ringfence.containers.model import Enrichment, Facts, Posture
from ringfence.containers.posture import scored
from ringfence_linux.namespaces import CLONE_FLAGS

__all__ = ["facts_of_config", "posture_of_config"]

# The first one present is used: containerd's CRI plugin, CRI-O, nerdctl.
_NAMES = (
    "org.ringfence.name", "ringfence.io/name", "io.kubernetes.cri.container-name",
    "io.kubernetes.container.name", "nerdctl/name",
)  # fmt: skip
_PODS = ("io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name")
_NAMESPACES = ("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace")
_POD_UIDS = ("io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid")
_IMAGES = (
    "ringfence.io/image",
    "io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName", "io.podman.image.name",
    "org.opencontainers.image.ref.name",
)  # fmt: skip
_IMAGE_IDS = ("io.kubernetes.cri-o.ImageRef",)
_TYPES = ("io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType")
# runtime-spec's names of namespaces -> those of /proc/PID/ns
_NAMESPACE_NAMES = {"network": "net", "mount": "mnt"}


def _first(annotations: Any, names: tuple[str, ...]) -> str:
    return next((found for name in names if (found := safejson.text(annotations, name))), "")


def facts_of_config(config: Any, *, source: str, runtime: str = "") -> Facts:
    """Returns names, image, pod and posture from config.json."""
    annotations = config.get("annotations") if isinstance(config, dict) else None
    labels = dict(safejson.labels(annotations))
    if manager := {"libpod": "podman", "cri-o": "cri-o"}.get(
        safejson.text(annotations, "io.container.manager")
    ):
        runtime = manager
    if runtime == "podman":  # it copies the image's annotations, which then must name no pod
        annotations = {key: value for key, value in labels.items() if key.startswith("io.podman.")}
    name = _first(annotations, _NAMES)
    if not name and _first(annotations, _TYPES) == "sandbox":
        name = "POD"
    return Facts(
        Enrichment.DONE,
        source=source,
        runtime=runtime,
        name=name,
        image=_first(annotations, _IMAGES),
        image_id=_first(annotations, _IMAGE_IDS),
        labels=labels,
        namespace=_first(annotations, _NAMESPACES),
        pod=_first(annotations, _PODS),
        pod_uid=_first(annotations, _POD_UIDS),
        cgroup_path="",
        posture=posture_of_config(config),
    )


def posture_of_config(config: Any) -> Posture:
    """Returns the requested posture."""
    linux = config.get("linux") if isinstance(config, dict) else None
    process = config.get("process") if isinstance(config, dict) else None
    own: dict[str, str] = {}
    for entry in safejson.children(linux, "namespaces"):
        kind = safejson.text(entry, "type")
        own[_NAMESPACE_NAMES.get(kind, kind)] = safejson.text(entry, "path")
    # A namespace joined by path may be the host's or a pod's: only one that is not listed is surely shared.
    shared = tuple(name for name in CLONE_FLAGS if name not in own and name not in ("time", "user"))
    flag = process.get("noNewPrivileges") if isinstance(process, dict) else None
    maps = [
        (inside, outside, size)
        for entry in safejson.children(linux, "uidMappings")[:16]
        if (inside := safejson.integer(entry, "containerID")) is not None
        and (outside := safejson.integer(entry, "hostID")) is not None
        and (size := safejson.integer(entry, "size")) is not None
    ]
    return scored(
        Posture(
            capabilities=_capabilities(process, "effective"),
            bounding=_capabilities(process, "bounding"),
            seccomp="filter" if isinstance(linux, dict) and linux.get("seccomp") else "disabled",
            user_namespace="user" in own,
            uid_map=tuple(maps),
            shared_namespaces=shared,
            no_new_privs=bool(flag),
            apparmor=safejson.text(process, "apparmorProfile") or None,
            sensitive_mounts=mounts.from_config(safejson.children(config, "mounts")),
        )
    )


def _capabilities(process: Any, which: str) -> tuple[str, ...]:
    named = safejson.children(process, "capabilities", which)
    return tuple(name[:32] for name in named[:64] if isinstance(name, str))
