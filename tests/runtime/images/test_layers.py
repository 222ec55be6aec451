# SPDX-License-Identifier: Apache-2.0
"""One layer: what is kept, what is refused, and that nothing is ever written outside."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence_runtime.images import ImageStore, Imported
from ringfence_runtime.images.errors import ImageError, LayerError
from tests.runtime.images.layouts import directory, entry, file, layer, link, pax, symlink
from tests.support import force

Load = Callable[..., Imported]


def root_of(store: ImageStore, done: Imported, number: int = 0) -> Path:
    """The files of a layer of an imported image."""
    return Path(store.layer(done.image.layers[number])) / "root"


def names(root: Path) -> list[str]:
    """Every path in a layer."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_keeps_owner_mode_time_and_setuid(load: Load, store: ImageStore) -> None:
    """Metadata is unchanged from the archive, and a setuid program is reported as one."""
    done = load(layer(directory(b"bin/", 0o751, uid=3), file(b"bin/su", b"x", mode=0o4755, uid=7, gid=8)))
    status = os.stat(root_of(store, done) / "bin/su")
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o4755, 7, 8)
    assert status.st_mtime == 1_000_000
    parent = os.stat(root_of(store, done) / "bin")
    assert (stat.S_IMODE(parent.st_mode), parent.st_uid, parent.st_mtime) == (0o751, 3, 1_000_000)
    assert done.unpacked[0].facts.setuid == ["bin/su"]


def test_keeps_links_and_fifos(load: Load, store: ImageStore) -> None:
    """Hardlinks share an inode, symlinks keep their text even without a target, FIFOs stay FIFOs."""
    done = load(layer(file(b"a", b"1"), link(b"b", b"a"), symlink(b"c", b"/no/where"), entry(b"d", b"6")))
    root = root_of(store, done)
    assert os.stat(root / "a").st_ino == os.stat(root / "b").st_ino
    assert os.readlink(root / "c") == "/no/where"
    assert stat.S_ISFIFO(os.stat(root / "d").st_mode)


def test_root_entry_sets_the_root_directory(load: Load, store: ImageStore) -> None:
    """`./` is the layer's root directory."""
    done = load(layer(directory(b"./", 0o711, uid=5)))
    status = os.stat(root_of(store, done))
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o711, 5)


def test_missing_parents_are_made(load: Load, store: ImageStore) -> None:
    """Directories without an entry get default metadata, with a fixed time."""
    done = load(layer(file(b"x/y/z/f", b"1")))
    status = os.stat(root_of(store, done) / "x/y")
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_mtime) == (0o755, 0, 0)


def test_long_names_by_pax_gnu_and_prefix(load: Load, store: ImageStore) -> None:
    """All three encodings of names of more than 100 bytes."""
    one, two = b"p/" + b"a" * 200, b"g/" + b"b" * 200
    gnu = entry(b"././@LongLink", b"L", two + b"\0", magic=b"ustar  \0")
    done = load(
        layer(
            pax((b"path", one)),
            file(b"short"),
            gnu,
            file(b"cut", magic=b"ustar  \0"),
            file(b"name", prefix=b"some/prefix"),
        )
    )
    assert {one.decode(), two.decode(), "some/prefix/name"} <= set(names(root_of(store, done)))


def test_names_of_any_bytes(load: Load, store: ImageStore) -> None:
    """Control characters and invalid UTF-8 are valid
    names; they are counted, and escaped in messages.
    """
    done = load(layer(file(b"\xff\xfe"), file(b"a\nb\x1b[2J"), file("grün".encode())))
    assert done.unpacked[0].facts.odd_names == 2
    assert b"a\nb\x1b[2J" in os.listdir(os.fsencode(root_of(store, done)))
    with pytest.raises(LayerError) as caught:
        load(layer(file(b"../\x1b[2J\n")))
    assert caught.value.message.isprintable()


def test_later_duplicate_counts(load: Load, store: ImageStore) -> None:
    """Of two entries with one name the last is kept, also with another kind."""
    done = load(
        layer(
            file(b"f", b"old"),
            file(b"f", b"new"),
            symlink(b"s", b"f"),
            file(b"s", b"file"),
            directory(b"d"),
            directory(b"d", 0o700),
            file(b"x"),
            directory(b"x"),
        )
    )
    root = root_of(store, done)
    assert (root / "f").read_text() == "new"
    assert (root / "s").read_text() == "file"
    assert not (root / "s").is_symlink()
    assert stat.S_IMODE(os.stat(root / "d").st_mode) == 0o700
    assert (root / "x").is_dir()


def test_whiteouts_take_overlay_form(load: Load, store: ImageStore) -> None:
    """A whiteout is the device 0:0, an opaque directory
    has the attribute, an entry of the layer itself stays.
    """
    done = load(
        layer(
            directory(b"d"),
            file(b"d/.wh..wh..opq"),
            file(b".wh.gone"),
            file(b"kept", b"1"),
            file(b".wh.kept"),
            file(b".wh.new"),
            directory(b"new"),
            directory(b"old"),
            file(b".wh.old"),
            entry(b".wh..wh.plnk", b"5"),
            file(b".wh..wh.plnk/1.2"),
        )
    )
    root = root_of(store, done)
    status = os.lstat(root / "gone")
    assert stat.S_ISCHR(status.st_mode)
    assert status.st_rdev == 0
    assert (root / "kept").read_text() == "1"
    assert [os.getxattr(root / name, "trusted.overlay.opaque") for name in ("d", "new", "old")] == [b"y"] * 3
    assert names(root) == ["d", "gone", "kept", "new", "old"]


def test_only_listed_attributes_are_kept(load: Load, store: ImageStore) -> None:
    """user.* and a valid security.capability stay;
    overlayfs's own (a redirect!) and labels do not.
    """
    try:
        os.setxattr(store.root, "user.probe", b"1")
    except OSError:
        force.elsewhere("this filesystem has no user attributes (tmpfs before 6.6)")
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    head = pax(
        (b"SCHILY.xattr.user.note", b"hi"),
        (b"SCHILY.xattr.security.capability", capability),
        (b"SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        (b"SCHILY.xattr.user.overlay.opaque", b"y"),
        (b"SCHILY.xattr.security.selinux", b"spc_t"),
    )
    done = load(layer(head, file(b"f", mode=0o755)))
    path = root_of(store, done) / "f"
    assert sorted(os.listxattr(path)) == ["security.capability", "user.note"]
    facts = done.unpacked[0].facts
    assert facts.capabilities == 1
    assert facts.dropped_xattrs == {"trusted": 1, "user": 1, "security": 1}


def test_devices_by_choice(load: Load, store: ImageStore) -> None:
    """Device nodes are refused, left out, or made; 0:0 is never made, since it would be a whiteout."""
    null = layer(entry(b"null", b"3", device=(1, 3), mode=0o666), file(b"after"))
    with pytest.raises(LayerError, match="device node"):
        load(null)
    skipped = load(null, devices="skip", name="skip")
    assert names(root_of(store, skipped)) == ["after"]
    with pytest.raises(ImageError, match="without its device nodes"):
        load(null, devices="make")
    made = load(layer(entry(b"null", b"3", device=(1, 3), mode=0o666)), devices="make", name="make")
    status = os.stat(root_of(store, made) / "null")
    assert (status.st_rdev, stat.S_IMODE(status.st_mode)) == (os.makedev(1, 3), 0o666)
    with pytest.raises(LayerError, match="whiteout"):
        load(layer(entry(b"hide", b"3", device=(0, 0))), devices="make")
    with pytest.raises(ImageError, match="contains device nodes"):
        load(layer(entry(b"null", b"3", device=(1, 3), mode=0o666)))


def with_checksum(made: bytes, number: int) -> bytes:
    """An entry with another checksum."""
    return made[:148] + b"%06o\0 " % number + made[156:]


def test_checksums(load: Load, store: ImageStore) -> None:
    """Signed sums of old programs are accepted, as by every reader; other sums are damage."""
    made = file(b"\xe4")
    stated = int(made[148:154], 8)
    done = load(layer(with_checksum(made, stated - 256)))
    assert os.listdir(os.fsencode(root_of(store, done))) == [b"\xe4"]
    for wrong in (stated + 1, stated - 255, 0):
        with pytest.raises(LayerError, match="checksum"):
            load(layer(with_checksum(made, wrong)))


HOSTILE = {
    "dot dot": [file(b"../victim/new")],
    "dot dot in the middle": [directory(b"a"), file(b"a/../../victim/new")],
    "hardlink outside": [link(b"h", b"../victim/file")],
    "absolute hardlink": [link(b"h", b"/etc/passwd")],
    "hardlink to a directory": [directory(b"d"), link(b"h", b"d")],
    "hardlink through a symlink": [symlink(b"s", b"../../../../../victim"), link(b"h", b"s/file")],
    "parent is a dangling symlink": [symlink(b"s", b"../../../../../victim"), file(b"s/file", b"pwned")],
    "parent is a file": [file(b"f"), file(b"f/g")],
    "parent is a symlink loop": [symlink(b"a", b"b"), symlink(b"b", b"a"), file(b"a/f")],
    "whiteout of dot dot": [file(b".wh...")],
    "whiteout of nothing": [file(b".wh.")],
    "whiteout below a whiteout": [file(b".wh.a/b")],
    "whiteout as a directory": [directory(b".wh.a")],
    "file for the root": [file(b"./")],
    "file over a directory with files": [directory(b"d"), file(b"d/f"), file(b"d")],
    "regular file with a slash": [file(b"f/")],
    "symlink to nothing": [symlink(b"s", b"")],
    "NUL in a PAX path": [pax((b"path", b"a\0b")), file(b"x")],
    "sparse": [entry(b"s", b"S")],
    "PAX sparse": [pax((b"GNU.sparse.map", b"0,1")), file(b"x")],
    "global path": [pax((b"path", b"evil"), kind=b"g"), file(b"x")],
    "hardlink with data": [file(b"a"), link(b"b", b"a", size=512)],
    "unknown type": [entry(b"x", b"Z")],
    "negative size": [file(b"x", raw_size=b"\xff" * 12)],
    "octal nonsense": [file(b"x", raw_size=b"0o17\0\0\0\0\0\0\0\0")],
    "owner out of range": [pax((b"uid", b"4294967295")), file(b"x")],
    "PAX length lies": [entry(b"x", b"x", b"99 path=a\n"), file(b"x")],
    "PAX without a keyword": [entry(b"x", b"x", b"6 abc\n"), file(b"x")],
    "header of nothing": [pax((b"path", b"a"))],
    "broken capability": [pax((b"SCHILY.xattr.security.capability", b"zz")), file(b"x")],
    "lone zero block": [file(b"a"), bytes(512), file(b"b")],
}


@pytest.mark.parametrize("entries", HOSTILE.values(), ids=HOSTILE)
def test_refuses(entries: list[bytes], load: Load, store: ImageStore, outside: Path) -> None:
    """Each is an error of the expected kind, and
    leaves neither image nor layer nor temporary files.
    """
    with pytest.raises(LayerError):
        load(layer(*entries))
    assert store.images() == []
    assert [os.listdir(f"{store.root}/{name}") for name in ("layers", "tmp")] == [[], []]


HARMLESS = {
    "absolute name": ([file(b"/etc/x", b"in")], "etc/x"),
    "parent is an absolute symlink": ([directory(b"t"), symlink(b"s", b"/t"), file(b"s/x", b"in")], "t/x"),
    "parent climbs": ([directory(b"t"), symlink(b"s", b"../../../t"), file(b"s/x", b"in")], "t/x"),
    "slashes": ([file(b"./a//./b", b"in")], "a/b"),
}


@pytest.mark.parametrize(("entries", "path"), HARMLESS.values(), ids=HARMLESS)
def test_stays_in_the_layer(
    entries: list[bytes], path: str, load: Load, store: ImageStore, outside: Path
) -> None:
    """Absolute names and symlinked parents are resolved in the layer's own root."""
    root = root_of(store, load(layer(*entries)))
    assert (root / path).read_text() == "in"
