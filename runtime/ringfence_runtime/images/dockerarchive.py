# SPDX-License-Identifier: Apache-2.0
"""The format of `docker save` (and `skopeo copy ... docker-archive:`): manifest.json and the layers' tars.

Only the configuration's name is its digest; the layers are checked against its diff_ids.
"""

from __future__ import annotations

import hashlib

from ringfence_runtime.images.config import parse_config
from ringfence_runtime.images.documents import Node, parse_document
from ringfence_runtime.images.errors import LayoutError, LimitError, show
from ringfence_runtime.images.layout import Layer, Manifest, check_layers, check_platform
from ringfence_runtime.images.limits import Limits
from ringfence_runtime.images.platforms import Platform
from ringfence_runtime.images.reference import choose, several_of_one_name
from ringfence_runtime.images.source import Source

__all__ = ["read_docker_archive"]


def _document(source: Source, path: str, limits: Limits, hint: str = "") -> bytes:
    window = source.open(path)
    if window is None:
        raise LayoutError(f"the image has no {show(path)}", hint=hint)
    with window:
        if window.size > limits.document_bytes:
            raise LimitError(
                f"{show(path)} has {window.size} bytes; a document may have {limits.document_bytes}"
            )
        return window.read(window.size)


def _chosen(source: Source, limits: Limits, reference: str) -> Node:
    hint = "neither an OCI layout nor a docker archive: skopeo copy docker://IMAGE oci:DIR:TAG"
    data = b'{"images":' + _document(source, "manifest.json", limits, hint) + b"}"
    images = parse_document(data, "manifest.json").nodes("images")
    places = choose([image.texts("RepoTags") for image in images], reference)
    if len(places) > 1:
        raise several_of_one_name(places)
    return images[places[0]]


def read_docker_archive(
    source: Source, limits: Limits, reference: str, platform: Platform | None
) -> Manifest:
    """Returns the image that `reference` means (a RepoTag or a place), or the only one."""
    image = _chosen(source, limits, reference)
    data = _document(source, image.text("Config"), limits)
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    if digest[7:] not in image.text("Config"):
        raise LayoutError("the archive's configuration does not have the digest that is its name")
    config = parse_config(parse_document(data, f"config {digest[:19]}"))
    check_platform(config, platform, platform or Platform.host())
    paths = image.texts("Layers")
    check_layers([Node({}, path) for path in paths], config, limits, "manifest.json")
    layers = []
    for path, diff_id in zip(paths, config.diff_ids, strict=True):
        window = source.open(path)
        if window is None:
            raise LayoutError(f"the archive has no {show(path)}")
        with window:
            layers.append(Layer(path, diff_id, window.size, diff_id))
    tags = image.texts("RepoTags")
    name = reference if reference in tags else tags[0] if tags else ""
    return Manifest(digest, digest, config, layers, name)
