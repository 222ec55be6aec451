# SPDX-License-Identifier: Apache-2.0
"""Files of runtimes, valid and hostile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.containers.enrich import safejson
from ringfence.containers.enrich.bundles import ContainerdBundles, CrunState, RuncState, safe_name
from ringfence.containers.enrich.docker import Docker
from ringfence.containers.enrich.oci import facts_of_config, posture_of_config
from ringfence.containers.enrich.podman import ContainersStorage
from ringfence.containers.enrich.request import Request
from ringfence_linux.numbers import NUMBERS
from tests.support.descriptors import open_descriptors
from tests.support.waiting import wait_for

HEX = "ab" * 32
UID = "12345678-1234-1234-1234-123456789abc"

CONFIG: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "annotations": {
        "io.kubernetes.cri.container-name": "web",
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.image-name": "docker.io/library/nginx:1",
        "io.kubernetes.cri.sandbox-name": "web-5",
        "io.kubernetes.cri.sandbox-namespace": "shop",
        "io.kubernetes.cri.sandbox-uid": UID,
    },
    "process": {
        "capabilities": {"effective": ["CAP_CHOWN"], "bounding": ["CAP_CHOWN", "CAP_KILL"]},
        "noNewPrivileges": True,
        "apparmorProfile": "cri-containerd.apparmor.d",
    },
    "mounts": [
        {"destination": "/host", "type": "bind", "source": "/", "options": ["rbind", "ro"]},
        {"destination": "/proc", "type": "proc", "source": "proc"},
    ],
    "linux": {
        "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "network", "path": "/proc/7/ns/net"}],
        "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"},
    },
}


def request(identifier: str = HEX, path: str = "") -> Request:
    """A request for one container."""
    return Request(5, identifier, path or f"/x/{identifier}", "", 0, 0)


def write(path: Path, value: Any) -> Path:
    """Writes a JSON file, with its directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_a_bundle_of_containerd_has_name_image_pod_and_posture(tmp_path: Path) -> None:
    """From the annotations of the CRI plugin."""
    write(tmp_path / "k8s.io" / HEX / "config.json", CONFIG)
    write(tmp_path / "k8s.io" / HEX / "init.pid", "4711")
    found = ContainerdBundles([tmp_path]).find(request())
    assert found is not None
    assert (found.runtime, found.name, found.image) == ("containerd", "web", "docker.io/library/nginx:1")
    assert (found.namespace, found.pod, found.pod_uid, found.pid) == ("shop", "web-5", UID, 4711)
    posture = found.posture
    assert posture is not None
    assert (posture.capabilities, posture.seccomp) == (("CAP_CHOWN",), "filter")
    assert (posture.no_new_privs, posture.apparmor) == (True, "cri-containerd.apparmor.d")
    assert [(mount.kind, mount.writable) for mount in posture.sensitive_mounts] == [("host-root", False)]
    assert posture.shared_namespaces == ("cgroup", "uts", "ipc")


def test_dockers_bundles_belong_to_docker(tmp_path: Path) -> None:
    """dockerd has its containers in the namespace `moby`."""
    write(tmp_path / "moby" / HEX / "config.json", {})
    found = ContainerdBundles([tmp_path]).find(request())
    assert found is not None
    assert found.runtime == "docker"


def runc_state(bundle: Path, cgroup: str) -> dict[str, Any]:
    """The read fields of state.json, as runc 1.1 writes it."""
    return {
        "id": HEX,
        "init_process_pid": 99,
        "config": {
            "cgroups": {"path": cgroup},
            "labels": [f"bundle={bundle}"],
            "capabilities": {"Bounding": ["CAP_CHOWN", "CAP_KILL"], "Effective": ["CAP_KILL"]},
            "mounts": [{"source": "/etc", "destination": "/e", "device": "bind", "flags": 4097}],
            "namespaces": [{"type": "NEWNS", "path": ""}, {"type": "NEWPID", "path": ""}],
            "no_new_privileges": True,
            "seccomp": None,
        },
    }


def test_runcs_state_leads_to_the_bundle(tmp_path: Path) -> None:
    """Its label `bundle=` names the directory of config.json."""
    write(tmp_path / "b/config.json", CONFIG)
    write(tmp_path / "run" / HEX / "state.json", runc_state(tmp_path / "b", f"/x/{HEX}"))
    found = RuncState([tmp_path / "run"]).find(request())
    assert found is not None
    assert (found.name, found.pid) == ("web", 99)


def test_runcs_state_alone_gives_a_posture(tmp_path: Path) -> None:
    """The bundle of a running container may be gone."""
    write(tmp_path / "run" / HEX / "state.json", runc_state(tmp_path / "gone", f"/x/{HEX}"))
    found = RuncState([tmp_path / "run"]).find(request())
    assert found is not None
    posture = found.posture
    assert posture is not None
    assert (posture.capabilities, posture.seccomp, posture.no_new_privs) == (("CAP_KILL",), "disabled", True)
    assert posture.bounding == ("CAP_CHOWN", "CAP_KILL")
    assert [(mount.kind, mount.writable) for mount in posture.sensitive_mounts] == [("host-etc", False)]


def test_another_container_with_the_same_id_is_ignored(tmp_path: Path) -> None:
    """The recorded cgroup must be that of the request."""
    state = runc_state(tmp_path, "/somewhere/else")
    write(tmp_path / "run/web/state.json", state)
    assert RuncState([tmp_path / "run"]).find(request("web", "/rftest-x/web2")) is None


def test_a_users_state_counts_for_that_users_cgroups_only(tmp_path: Path) -> None:
    """A user can write below /run/user, but must not rename another user's container."""
    write(tmp_path / "1000/runc" / HEX / "state.json", runc_state(tmp_path, ""))
    source = RuncState(users=tmp_path)
    own = f"/user.slice/user-1000.slice/user@1000.service/{HEX}"
    assert source.find(request(path=own)) is not None
    assert source.find(request(path=f"/user.slice/user-1001.slice/x/{HEX}")) is None
    assert source.find(request(path=f"/kubepods/{HEX}")) is None


def test_cruns_status_and_configuration(tmp_path: Path) -> None:
    """crun has a copy of config.json next to its status."""
    status = {"pid": 24894, "cgroup-path": f"/x/{HEX}", "bundle": "/nowhere"}
    write(tmp_path / HEX / "status", status)
    write(tmp_path / HEX / "config.json", CONFIG)
    found = CrunState([tmp_path]).find(request())
    assert found is not None
    assert (found.pid, found.name, found.source) == (24894, "web", "crun")


def test_podmans_storage_knows_name_and_image(tmp_path: Path) -> None:
    """`metadata` is JSON in a JSON string."""
    metadata = {"image-name": "localhost/web:2", "image-id": "cd" * 32, "name": "blue_web"}
    entry = {"id": HEX, "names": ["blue_web"], "image": "cd" * 32, "metadata": json.dumps(metadata)}
    directory = tmp_path / "overlay-containers"
    write(directory / "containers.json", [{"id": 5}, "junk", entry])
    write(
        directory / HEX / "userdata/config.json",
        {"annotations": {"io.container.manager": "libpod", "team": "blue"}},
    )
    found = ContainersStorage([tmp_path]).find(request())
    assert found is not None
    assert (found.runtime, found.name, found.image) == ("podman", "blue_web", "localhost/web:2")
    assert found.labels["team"] == "blue"


def test_an_image_names_neither_itself_nor_its_container(tmp_path: Path) -> None:
    """Podman copies the annotations of an image: by them its author would choose the exceptions of policies.
    Where the index says nothing, they are better than nothing. A long index entry is no way around it."""
    annotations = {"ringfence.io/image": "registry.example/trusted", "ringfence.io/name": "dns"}
    directory = tmp_path / "overlay-containers"
    write(directory / HEX / "userdata/config.json", {"annotations": annotations})
    for metadata, names in (
        ({"image-name": "evil:1", "name": "web"}, ("web", "evil:1")),
        ({"image-name": "evil:1", "name": "web", "mount-label": "x" * 2000}, ("web", "evil:1")),
        ({"image-name": "evil:1", "name": "k8s_web_pod_ns_uid_0", "metadata-name": "web"}, ("web", "evil:1")),
        ({}, ("dns", "registry.example/trusted")),
    ):
        write(directory / "containers.json", [{"id": HEX, "metadata": json.dumps(metadata)}])
        found = ContainersStorage([tmp_path]).find(request())
        assert found is not None
        assert (found.name, found.image) == names


def test_an_image_for_podman_names_no_pod(tmp_path: Path) -> None:
    """Its annotations would put a container into a namespace that policies exempt."""
    annotations = {
        "io.container.manager": "libpod",
        "io.kubernetes.pod.namespace": "kube-system",
        "io.kubernetes.cri.sandbox-name": "kube-proxy-1",
        "ringfence.io/image": "registry.example/trusted",
    }
    directory = tmp_path / "overlay-containers"
    write(directory / HEX / "userdata/config.json", {"annotations": annotations})
    write(directory / "containers.json", [{"id": HEX, "metadata": "{}"}])
    found = ContainersStorage([tmp_path]).find(request())
    assert found is not None
    assert (found.runtime, found.namespace, found.pod, found.image) == ("podman", "", "", "")
    assert found.labels["io.kubernetes.pod.namespace"] == "kube-system"
    assert not found.cluster_labels


def test_dockers_files_are_read_if_the_daemon_does_not_respond(tmp_path: Path) -> None:
    """config.v2.json has the fields of the API."""
    write(
        tmp_path / "containers" / HEX / "config.v2.json",
        {
            "Name": "/web",
            "Image": "sha256:1",
            "State": {"Pid": 12},
            "Config": {
                "Image": "nginx:1",
                "Labels": {"io.kubernetes.pod.name": "web-5", "io.kubernetes.pod.uid": UID, "bad": 5},
            },
        },
    )
    docker = Docker(tmp_path / "no.sock", roots=[tmp_path])
    found = docker.find(request(path=f"/kubepods/pod{UID}/{HEX}"))
    assert found is not None
    assert (found.name, found.image, found.pod, found.pid) == ("web", "nginx:1", "web-5", 12)
    assert found.labels == {"io.kubernetes.pod.name": "web-5", "io.kubernetes.pod.uid": UID}
    # Anybody can write these labels into an image: without the pod's cgroup they name no pod.
    for path in (f"/docker/{HEX}", f"/kubepods/pod{UID.replace('1', '2')}/{HEX}"):
        found = docker.find(request(path=path))
        assert found is not None
        assert (found.pod, found.pod_uid) == ("", "")


@pytest.mark.parametrize("identifier", ["..", ".", "a/b", "../x", "", "a\0b", "é", "a" * 256, "a b"])
def test_an_id_that_is_no_file_name_opens_nothing(tmp_path: Path, identifier: str) -> None:
    """A container's id must not lead out of the state directory."""
    assert not safe_name(identifier)
    for source in (RuncState([tmp_path]), CrunState([tmp_path]), ContainerdBundles([tmp_path])):
        assert source.find(request(identifier)) is None


HOSTILE = {
    "deep": "[" * 200_000,
    "closed": "[" * 5000 + "]" * 5000,
    "big": json.dumps({"annotations": {"a": "x" * (2 << 20)}}),
    "number": '{"annotations": ' + "9" * 10_000 + "}",
    "half": '{"annotations": {"a"',
    "empty": "",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_documents_raise_unusable(tmp_path: Path, name: str) -> None:
    """Too deep, too large or incomplete documents raise no other exception."""
    write(tmp_path / "k" / HEX / "config.json", HOSTILE[name])
    with pytest.raises(safejson.Unusable):
        ContainerdBundles([tmp_path]).find(request())


def test_a_non_regular_file_is_not_opened(tmp_path: Path) -> None:
    """An unprivileged user chooses paths in its runtime's state, and opening a device may have an effect
    (/dev/watchdog), so the type is checked first. A FIFO shows it: its writer continues once it is opened.
    """
    fifo = tmp_path / "config.json"
    os.mkfifo(fifo)
    writer = subprocess.Popen([sys.executable, "-Sc", f"open({str(fifo)!r}, 'wb')"])
    try:
        wait_for(lambda: _sleeps_in_open(writer.pid), "the writer to wait")
        with pytest.raises(safejson.Unusable, match="no regular file"):
            safejson.read(fifo)
        wait_for(lambda: _sleeps_in_open(writer.pid), "the writer to wait still")
    finally:
        writer.kill()
        writer.wait()


def _sleeps_in_open(pid: int) -> bool:
    """Returns True if the process is in openat(2), by /proc/PID/syscall."""
    words = Path(f"/proc/{pid}/syscall").read_text().split()
    return words[0] == str(NUMBERS["openat"][0])


def test_a_link_as_last_component_is_refused_if_required(tmp_path: Path) -> None:
    """With `follow=False` a link is refused; otherwise its target is read."""
    write(tmp_path / "real.json", {"a": 1})
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    assert safejson.read(tmp_path / "link.json") == {"a": 1}
    with pytest.raises(safejson.Unusable):
        safejson.read(tmp_path / "link.json", follow=False)


def test_a_fifo_in_the_place_of_a_file_does_not_block(tmp_path: Path) -> None:
    """It is opened without blocking, and refused."""
    (tmp_path / "k" / HEX).mkdir(parents=True)
    os.mkfifo(tmp_path / "k" / HEX / "config.json")
    with pytest.raises(safejson.Unusable, match="regular"):
        ContainerdBundles([tmp_path]).find(request())


def test_a_state_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """Runtimes write regular files there."""
    write(tmp_path / "other", {"init_process_pid": 1})
    (tmp_path / HEX).mkdir()
    (tmp_path / HEX / "state.json").symlink_to(tmp_path / "other")
    with pytest.raises(safejson.Unusable):
        RuncState([tmp_path]).find(request())


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_keys = ["annotations", "process", "mounts", "linux"]


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(_keys), _json))
def test_wrong_types_in_config_json_raise_nothing(config: dict[str, Any]) -> None:
    """A list instead of a map, numbers instead of names."""
    facts_of_config(config, source="test")


@settings(deadline=None)
@given(_json)
def test_any_json_value_as_config_json_raises_nothing(config: Any) -> None:
    """It need not be a map."""
    facts_of_config(config, source="test")


def test_labels_are_bounded(tmp_path: Path) -> None:
    """In number and size."""
    many = {f"k{n}": "v" * 5000 for n in range(1000)}
    found = facts_of_config({"annotations": many}, source="test")
    assert len(found.labels) == safejson.LABELS_MAX
    assert {len(value) for value in found.labels.values()} == {safejson.TEXT_MAX}


@pytest.mark.parametrize(
    ("manager", "asked", "runtime"),
    [("libpod", "", "podman"), ("cri-o", "", "cri-o"), ("other", "x", "x"), ("", "containerd", "containerd")],
)
def test_the_manager_of_a_bundle_is_its_runtime(manager: str, asked: str, runtime: str) -> None:
    """Podman and CRI-O write it; others do not."""
    config = {"annotations": {"io.container.manager": manager} if manager else {}}
    found = facts_of_config(config, source="x", runtime=asked)
    assert (found.runtime, found.source, found.enrichment) == (runtime, "x", "done")


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({"io.kubernetes.cri.container-type": "sandbox"}, {"name": "POD"}),
        ({"io.kubernetes.cri-o.ContainerType": "sandbox"}, {"name": "POD"}),
        ({"io.kubernetes.cri.container-type": "container"}, {"name": ""}),
        ({"io.kubernetes.container.name": "web", "io.kubernetes.cri.container-type": "sandbox"},
         {"name": "web"}),
        ({"org.ringfence.name": "own", "nerdctl/name": "n"}, {"name": "own"}),
        ({"ringfence.io/name": "own", "ringfence.io/image": "i:1"}, {"name": "own", "image": "i:1"}),
        ({"nerdctl/name": "n"}, {"name": "n"}),
        ({"io.kubernetes.cri-o.ImageName": "a:1", "io.kubernetes.cri-o.ImageRef": "id"},
         {"image": "a:1", "image_id": "id"}),
        ({"org.opencontainers.image.ref.name": "b:1"}, {"image": "b:1"}),
        ({"io.kubernetes.pod.name": "p", "io.kubernetes.pod.namespace": "n", "io.kubernetes.pod.uid": UID},
         {"pod": "p", "namespace": "n", "pod_uid": UID}),
    ],
)  # fmt: skip
def test_annotations_of_each_engine_are_read(annotations: dict[str, str], expected: dict[str, str]) -> None:
    """The first name that is present counts."""
    found = facts_of_config({"annotations": annotations}, source="x")
    assert {key: getattr(found, key) for key in expected} == expected
    assert found.labels == annotations


def test_only_podmans_own_annotations_count_for_it() -> None:
    """The others are the image's."""
    config = {
        "annotations": {"io.container.manager": "libpod", "io.podman.image.name": "a:1", "nerdctl/name": "n"}
    }
    found = facts_of_config(config, source="x")
    assert (found.image, found.name) == ("a:1", "")


def test_the_requested_posture_is_that_of_the_configuration() -> None:
    """A namespace that is not listed is the host's; `time` and `user` are not counted as shared."""
    assert facts_of_config({}, source="x").posture == posture_of_config(None)
    empty = posture_of_config({})
    assert empty.shared_namespaces == ("mnt", "cgroup", "uts", "ipc", "pid", "net")
    assert (empty.user_namespace, empty.seccomp, empty.no_new_privs) == (False, "disabled", False)
    assert (empty.apparmor, empty.uid_map, empty.capabilities, empty.bounding) == (None, (), (), ())
    mapping = {"containerID": 0, "hostID": 1000, "size": 10}
    kinds = ("user", "mount", "network", "pid", "ipc", "uts", "cgroup")
    own = posture_of_config({
        "process": {"capabilities": {"effective": ["CAP_KILL", 7], "bounding": ["CAP_CHOWN"]}},
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "uidMappings": [mapping, {"containerID": 1, "hostID": 2}, {**mapping, "size": "x"}],
            "seccomp": {},
        },
    })  # fmt: skip
    assert (own.user_namespace, own.shared_namespaces) == (True, ())
    assert (own.capabilities, own.bounding) == (("CAP_KILL",), ("CAP_CHOWN",))
    assert (own.uid_map, own.seccomp) == (((0, 1000, 10),), "disabled")


def test_reading_leaves_no_descriptor_open(tmp_path: Path) -> None:
    """Neither of a document, nor of one that is refused."""
    good = write(tmp_path / "good.json", {"a": 1})
    before = open_descriptors()
    for _ in range(5):
        assert safejson.read(good) == {"a": 1}
        with pytest.raises(safejson.Unusable):
            safejson.read(good, size_max=3)
        with pytest.raises(safejson.Unusable):
            safejson.read(tmp_path)
    assert open_descriptors() == before


def test_the_bounds_of_a_document_are_exact(tmp_path: Path) -> None:
    """Bytes of a file, characters of a text, entries of a list, and numbers that are numbers."""
    file = write(tmp_path / "a", "12345")
    assert safejson.read_text(file, size_max=5) == "12345"
    with pytest.raises(safejson.Unusable, match="larger than 4"):
        safejson.read_text(file, size_max=4)
    value = {"t": "x" * 2000, "l": [0] * 2000, "b": True, "f": 1.5, "n": 3, "d": {"e": "deep"}}
    assert len(safejson.text(value, "t")) == 1024
    assert len(safejson.children(value, "l")) == 1024
    assert [safejson.integer(value, key) for key in ("n", "b", "f", "t", "x")] == [3, None, None, None, None]
    assert (safejson.text(value, "d", "e"), safejson.text(value, "n"), safejson.text(value, "t", "e")) == (
        "deep",
        "",
        "",
    )
    assert safejson.children(value, "t") == []
    assert safejson.labels({"a": "x" * 2000, "k" * 256: "1", "k" * 257: "2", "n": 3}) == {
        "a": "x" * 1024,
        "k" * 256: "1",
    }
    assert safejson.labels([]) == {}


def test_a_path_that_cannot_be_opened_is_unusable(tmp_path: Path) -> None:
    """Except one that does not exist, also below a file."""
    file = write(tmp_path / "a", "1")
    for path in (tmp_path / "none", file / "below"):
        with pytest.raises(FileNotFoundError):
            safejson.read(path)
    (tmp_path / "loop").symlink_to("loop")
    for name in ("loop", "x" * 300, "a\0b"):
        with pytest.raises(safejson.Unusable, match="cannot be opened"):
            safejson.read_text(f"{tmp_path}/{name}")
