# SPDX-License-Identifier: Apache-2.0
"""Reads one image from a source: index -> manifest (of this platform) -> configuration and layers, verified.

Supports the OCI image layout and, without an `oci-layout` file, the format of `docker save`.
"""

from __future__ import annotations

from ringfence_runtime.images.config import ImageConfig, parse_config
from ringfence_runtime.images.digest import check_digest
from ringfence_runtime.images.documents import Node, parse_document
from ringfence_runtime.images.errors import ImageNotFoundError, LayoutError, LimitError, show
from ringfence_runtime.images.limits import Limits
from ringfence_runtime.images.platforms import Platform
from ringfence_runtime.images.reference import choose, several_of_one_name
from ringfence_runtime.images.source import ModuleFile, Source
from ringfence_runtime.images.streams import VerifiedBlob, read_document

__all__ = ["Layer", "Manifest", "blob_path", "read_manifest"]

_INDEX = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFEST = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_CONFIG = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
_WASM_CONFIG = "application/vnd.wasm.config.v0+json"
_LAYER = ("application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.nondistributable.v1.tar",
          "application/vnd.docker.image.rootfs.diff.tar",
          "application/vnd.docker.image.rootfs.foreign.diff.tar")  # fmt: skip
_COMPRESSION = ("", "+gzip", "+zstd", ".gzip", ".zstd")
_LAYER_TYPES = frozenset(kind + how for kind in _LAYER for how in _COMPRESSION)
# containerd, and `docker save` of its store, write the whole name, and only the tag as the reference.
_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_NESTED = 4


class Layer:
    """One layer: its blob, and the digest of its uncompressed content. `is_module`: WebAssembly, no tar."""

    __slots__ = ("diff_id", "digest", "is_module", "path", "size")

    def __init__(self, path: str, digest: str, size: int, diff_id: str, *, is_module: bool = False) -> None:
        self.path = path
        self.digest = digest
        self.size = size
        self.diff_id = diff_id
        self.is_module = is_module


class Manifest:
    """One image, chosen and checked."""

    __slots__ = ("config", "config_digest", "digest", "layers", "reference")

    def __init__(self, digest: str, config_digest: str, config: ImageConfig, layers: list[Layer],
                 reference: str) -> None:  # fmt: skip
        self.digest = digest
        self.config_digest = config_digest
        self.config = config
        self.layers = layers
        self.reference = reference


def blob_path(digest: str) -> str:
    """Returns the path of a blob in a layout."""
    return "blobs/" + digest.replace(":", "/")


def read_manifest(
    source: Source, limits: Limits, *, reference: str = "", platform: Platform | None = None
) -> Manifest:
    """Returns the image named `reference` (default: the only one) for `platform` (this machine's)."""
    if isinstance(source, ModuleFile):
        from ringfence_runtime.images.wasm import read_module_file

        return read_module_file(source)
    reader = _Reader(source, limits, platform)
    marker = source.open("oci-layout")
    if marker is None:
        from ringfence_runtime.images.dockerarchive import read_docker_archive

        return read_docker_archive(source, limits, reference, platform)
    with marker:
        node = parse_document(marker.read(limits.document_bytes), "oci-layout")
    if node.text("imageLayoutVersion") != "1.0.0":
        raise LayoutError(f"oci-layout: version {show(node.text('imageLayoutVersion'))} is not 1.0.0")
    window = source.open("index.json")
    if window is None:
        raise LayoutError("the layout has no index.json")
    with window:
        if window.size > limits.document_bytes:
            raise LimitError(
                f"index.json has {window.size} bytes; a document may have {limits.document_bytes}"
            )
        index = parse_document(window.read(window.size), "index.json")
    entries = [entry for entry in index.nodes("manifests") if not _is_attestation(entry)]
    names = [_names_of(entry) for entry in entries]
    places = choose(names, reference)
    name = next(iter(names[places[0]]), "")
    if len(places) == 1:
        return reader.descend(entries[places[0]], name, _NESTED)
    # Several entries of one name: the index itself is the multi-platform one.
    platforms = {str(Platform.of(entries[place].node("platform"))) for place in places}
    if not name and len(platforms) < len(places):
        raise several_of_one_name(places)
    several = Node({"manifests": [entries[place].data for place in places]}, index.path)
    return reader.descend(several, name, _NESTED)


def _names_of(entry: Node) -> list[str]:
    """Returns the names of an image in its layout, the whole one first."""
    said = entry.node("annotations")
    return [name for name in map(said.text, _NAMES) if name]


def _is_attestation(entry: Node) -> bool:
    """Returns True for BuildKit's attestations: manifests of the platform unknown/unknown."""
    return entry.node("platform").text("os") == "unknown"


class _Reader:
    def __init__(self, source: Source, limits: Limits, platform: Platform | None) -> None:
        self.source = source
        self.limits = limits
        self.asked = platform
        self.platform = platform or Platform.host()

    def document(self, descriptor: Node, name: str) -> Node:
        digest = descriptor.digest("digest")
        window = self.source.open(blob_path(digest))
        if window is None:
            raise LayoutError(f"{descriptor.path}: the layout has no blob {digest}")
        with window:
            blob = VerifiedBlob(window, digest, descriptor.number("size"))
            return parse_document(read_document(blob, self.limits.document_bytes), f"{name} {digest[:19]}")

    def descend(self, entry: Node, reference: str, depth: int) -> Manifest:
        """Follows indexes to the manifest of the platform."""
        if "manifests" in entry and "digest" not in entry:
            return self.choose(entry, reference, depth)
        kind = entry.text("mediaType")
        if kind in _INDEX:
            if not depth:
                raise LimitError("indexes of indexes of indexes")
            node = self.document(entry, "index")
            self.unambiguous(node, kind)
            return self.choose(node, reference, depth - 1)
        if kind not in _MANIFEST:
            raise LayoutError(f"{entry.path}: {show(kind)} is neither an image nor an index of images")
        node = self.document(entry, "manifest")
        self.unambiguous(node, kind)
        return self.manifest(node, entry.digest("digest"), reference)

    @staticmethod
    def unambiguous(node: Node, kind: str) -> None:
        """Prevents CVE-2021-41190: a document that is an index to one reader and a manifest to another."""
        said = node.text("mediaType")
        if said and said != kind:
            raise LayoutError(f"{node.path}: says {show(said)}, its descriptor {show(kind)}")
        if "manifests" in node and ("layers" in node or "config" in node):
            raise LayoutError(f"{node.path}: is an index and a manifest at once")

    def choose(self, index: Node, reference: str, depth: int) -> Manifest:
        """Returns the first entry for the platform, as specified."""
        entries = [entry for entry in index.nodes("manifests") if not _is_attestation(entry)]
        for entry in entries:
            if "platform" not in entry or self.platform.accepts(Platform.of(entry.node("platform"))):
                return self.descend(entry, reference, depth)
        for entry in entries if self.asked is None else ():
            if Platform.of(entry.node("platform")).is_wasm:
                return self.descend(entry, reference, depth)
        there = (
            ", ".join(show(str(Platform.of(entry.node("platform")))) for entry in entries[:20]) or "nothing"
        )
        raise ImageNotFoundError(
            f"the image does not exist for {self.platform}", hint=f"it exists for {there}"
        )

    def manifest(self, node: Node, digest: str, reference: str) -> Manifest:
        """Checks a manifest and its configuration against each other."""
        if node.data.get("schemaVersion") != 2:
            raise LayoutError(f"{node.path}: schemaVersion is not 2")
        described = node.node("config")
        if described.text("mediaType") == _WASM_CONFIG:
            return self.artifact(node, described, digest, reference)
        if described.text("mediaType") not in _CONFIG:
            raise LayoutError(
                f"{described.path}: {show(described.text('mediaType'))}: this is not a container image"
            )
        config = parse_config(self.document(described, "config"))
        check_platform(config, self.asked, self.platform)
        nodes = node.nodes("layers")
        check_layers(nodes, config, self.limits, node.path)
        layers = []
        for item, diff_id in zip(nodes, config.diff_ids, strict=True):
            if item.text("mediaType") not in _LAYER_TYPES:
                raise LayoutError(
                    f"{item.path}: {show(item.text('mediaType'))} is not a supported layer format"
                )
            blob = item.digest("digest")
            layers.append(Layer(blob_path(blob), blob, item.number("size"), diff_id))
        return Manifest(
            digest, check_digest(described.data["digest"], described.path), config, layers, reference
        )

    def artifact(self, node: Node, described: Node, digest: str, reference: str) -> Manifest:
        """Checks an artifact of WebAssembly."""
        from ringfence_runtime.images.wasm import read_artifact

        document = self.document(described, "config")
        blob = next((item.digest("digest") for item in node.nodes("layers")), "")
        config, layers = read_artifact(node, document, self.source, blob_path(blob))
        check_platform(config, self.asked, self.platform)
        return Manifest(digest, described.digest("digest"), config, layers, reference)


def check_platform(config: ImageConfig, asked: Platform | None, platform: Platform) -> None:
    """Refuses an image of another architecture, which would fail unclearly at its first instruction."""
    if not platform.accepts(config.platform) and (asked or not config.platform.is_wasm):
        hint = "" if asked else f"--platform {config.platform} imports it anyway"
        raise ImageNotFoundError(f"the image is for {show(str(config.platform))}, not {platform}", hint=hint)


def check_layers(layers: list[Node], config: ImageConfig, limits: Limits, path: str) -> None:
    """Checks that the number of layers equals the configuration's number of digests, and the limit."""
    if len(layers) != len(config.diff_ids):
        raise LayoutError(
            f"{path}: {len(layers)} layers, and the configuration has {len(config.diff_ids)} diff_ids"
        )
    if len(layers) > limits.layers:
        raise LimitError(f"{path}: {len(layers)} layers; at most {limits.layers} are unpacked")
