# SPDX-License-Identifier: Apache-2.0
"""Thousands of hostile inputs: a layer never writes outside, and raises only ImageError."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringfence_runtime.images import ImageError, Limits
from ringfence_runtime.images.config import parse_config
from ringfence_runtime.images.documents import parse_document
from ringfence_runtime.images.layers import unpack_blob
from ringfence_runtime.images.layout import Layer
from ringfence_runtime.images.source import TarSource, Window
from tests.runtime.images.layouts import END, digest, entry, pax, records

LIMITS = Limits(entries=200, layer_bytes=1 << 20, file_bytes=1 << 18, header_bytes=4096, depth=20)
FUZZ = settings(
    max_examples=5000 if os.environ.get("RINGFENCE_FUZZ") else 120,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

PARTS = st.sampled_from(
    [b"a", b"b", b"d", b"..", b".", b"", b"\xff", b"a\n", b".wh.a", b".wh..wh..opq", b".wh..", b"x" * 60]
)
NAMES = st.lists(PARTS, min_size=1, max_size=5).map(b"/".join) | st.sampled_from(
    [b"/etc/passwd", b"../../victim/file", b"/", b"a/", b"", b"../" * 9 + b"victim/file", b"victim"]
)
XATTRS = st.sampled_from(
    [b"user.a", b"security.capability", b"trusted.overlay.redirect", b"user.overlay.opaque", b""]
)
RECORDS = st.lists(
    st.tuples(
        st.sampled_from(
            [b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"GNU.sparse.size", b"comment"]
        )
        | XATTRS.map(lambda name: b"SCHILY.xattr." + name),
        NAMES | st.integers(-9, 1 << 66).map(lambda number: b"%d" % number) | st.binary(max_size=24),
    ),
    min_size=1,
    max_size=4,
)


@st.composite
def one_entry(draw: st.DrawFn) -> bytes:
    """A mostly well-formed header around mostly malformed contents."""
    kind = draw(
        st.sampled_from(
            [
                b"0",
                b"0",
                b"0",
                b"\0",
                b"1",
                b"1",
                b"2",
                b"2",
                b"3",
                b"4",
                b"5",
                b"5",
                b"6",
                b"L",
                b"K",
                b"S",
                b"7",
            ]
        )
    )
    made = entry(
        draw(NAMES),
        kind,
        draw(st.binary(max_size=600)) if kind in (b"0", b"\0", b"L", b"K") else b"",
        link=draw(NAMES),
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(st.sampled_from([0, 1, 65534, (1 << 32) - 1, 1 << 40])),
        device=draw(st.sampled_from([(0, 0), (1, 3), (8, 0)])),
        magic=draw(st.sampled_from([b"ustar\x0000", b"ustar  \0", b""])),
    )
    if draw(st.integers(0, 3)) == 0:
        made = pax(*draw(RECORDS), kind=draw(st.sampled_from([b"x", b"x", b"g"]))) + made
    return made


ARCHIVES = st.lists(one_entry(), max_size=12).map(b"".join)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An archive with bytes changed, cut or repeated; its checksums are then often wrong."""
    data = bytearray(draw(ARCHIVES) + END)
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    cut = draw(st.integers(0, len(data)))
    return bytes(data[:cut]) + bytes(data[draw(st.integers(0, len(data))) :])


class Bytes:
    """A source with one blob."""

    name = "bytes"

    def __init__(self, data: bytes) -> None:
        self.fd = os.memfd_create("blob")
        os.write(self.fd, data)
        self.size = len(data)

    def open(self, path: str) -> Window:
        return Window(self.fd, 0, self.size, owned=False)

    def close(self) -> None:
        os.close(self.fd)


@contextmanager
def only_image_errors() -> Iterator[None]:
    """A refusal must be an error of this package, whose text is safe to print anywhere."""
    try:
        yield
    except ImageError as error:
        if not error.message.isprintable() or not error.message.isascii():
            raise AssertionError(error.message) from None


def snapshot(path: Path) -> list[tuple[Any, ...]]:
    """Returns the state around the layer that an escape would change."""
    found = []
    for each in sorted([path, *path.rglob("*")]):
        status = os.lstat(each)
        if "target" not in each.relative_to(path).parts:
            found.append(
                (str(each), status.st_mode, status.st_uid, status.st_nlink, status.st_size, status.st_ino)
            )
    return found


def unpack(data: bytes, blob: bytes) -> None:
    """Unpack next to other directories, and check that these are unchanged."""
    base = Path(tempfile.mkdtemp(prefix="ringfence-fuzz-"))
    source = Bytes(blob)
    try:
        for place in (base / "victim", base / "store/victim"):
            place.mkdir(parents=True)
            (place / "file").write_text("untouched")
        target = base / "store/target"
        target.mkdir()
        before = snapshot(base)
        with only_image_errors():
            layer = Layer("x", digest(blob), len(blob), digest(data))
            unpack_blob(source, layer, str(target), LIMITS, devices="make", overlay="trusted")
        assert snapshot(base) == before
    finally:
        source.close()
        shutil.rmtree(base)


@FUZZ
@given(ARCHIVES)
def test_hostile_archives(data: bytes) -> None:
    """Well-formed archives of hostile entries."""
    unpack(data + END, data + END)


@FUZZ
@given(damaged())
def test_damaged_archives(data: bytes) -> None:
    """Archives with flipped, cut and repeated bytes."""
    unpack(data, data)


@FUZZ
@given(ARCHIVES, st.data())
def test_damaged_compression(archive: bytes, data: st.DataObject) -> None:
    """gzip streams with changed bytes; other data is read as a tar."""
    blob = bytearray(gzip.compress(archive + END))
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    unpack(archive + END, bytes(blob))


@FUZZ
@given(damaged())
def test_hostile_layout_archives(data: bytes) -> None:
    """The reader that indexes a layout in a tar."""
    with tempfile.NamedTemporaryFile(prefix="ringfence-fuzz-") as file:
        file.write(data)
        file.flush()
        with only_image_errors():
            TarSource(file.name, LIMITS).close()


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
TEXTS = st.sampled_from(["/a", "A=1", "sha256:0"])
LISTS = st.lists(LEAVES | TEXTS, max_size=3)
JSON = LEAVES | TEXTS | LISTS | st.dictionaries(st.text(max_size=4), LEAVES | LISTS, max_size=3)
MEMBERS = [
    "Env",
    "Cmd",
    "Entrypoint",
    "User",
    "WorkingDir",
    "Volumes",
    "Labels",
    "StopSignal",
    "ExposedPorts",
]


@FUZZ
@given(st.dictionaries(st.sampled_from(MEMBERS), JSON), JSON, JSON)
def test_hostile_configurations(config: dict[str, Any], system: Any, ids: Any) -> None:
    """Any JSON in place of a configuration."""
    document = {
        "config": config,
        "os": system,
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": ids},
    }
    with only_image_errors():
        parse_config(parse_document(json.dumps(document).encode(), "config"))


@FUZZ
@given(st.binary(max_size=200))
def test_hostile_documents(data: bytes) -> None:
    """Any bytes in place of a document."""
    with only_image_errors():
        parse_document(data, "document")


@FUZZ
@given(RECORDS)
def test_records_have_correct_lengths(values: list[tuple[bytes, bytes]]) -> None:
    """The tests' own PAX writer writes correct lengths;
    otherwise the cases above would test little.
    """
    data = records(values)
    count = 0
    while data:
        length = int(data.partition(b" ")[0])
        assert data[length - 1 : length] == b"\n"
        data = data[length:]
        count += 1
    assert count == len(values)
