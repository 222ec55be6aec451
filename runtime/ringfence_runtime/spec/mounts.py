# SPDX-License-Identifier: Apache-2.0
"""`mounts` of the configuration: option words become attribute masks; what is left goes to the filesystem."""

from __future__ import annotations

from ringfence_linux import syscalls
from ringfence_runtime.spec.node import U32, Node, choice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["OPTIONS", "PROPAGATION", "IdMapping", "Mount", "mappings", "parse_mounts"]

# word -> (attributes set, attributes cleared). The same words with a leading `r` act on the whole tree below.
_ATTRIBUTES = {
    "ro": (syscalls.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, syscalls.MOUNT_ATTR_RDONLY),
    "nosuid": (syscalls.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, syscalls.MOUNT_ATTR_NOSUID),
    "nodev": (syscalls.MOUNT_ATTR_NODEV, 0),
    "dev": (0, syscalls.MOUNT_ATTR_NODEV),
    "noexec": (syscalls.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, syscalls.MOUNT_ATTR_NOEXEC),
    "noatime": (syscalls.MOUNT_ATTR_NOATIME, syscalls.MOUNT_ATTR__ATIME),
    "atime": (0, syscalls.MOUNT_ATTR__ATIME),
    "relatime": (syscalls.MOUNT_ATTR_RELATIME, syscalls.MOUNT_ATTR__ATIME),
    "norelatime": (0, syscalls.MOUNT_ATTR__ATIME),
    "strictatime": (syscalls.MOUNT_ATTR_STRICTATIME, syscalls.MOUNT_ATTR__ATIME),
    "nostrictatime": (0, syscalls.MOUNT_ATTR__ATIME),
    "nodiratime": (syscalls.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, syscalls.MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (syscalls.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, syscalls.MOUNT_ATTR_NOSYMFOLLOW),
}
PROPAGATION = {
    "private": syscalls.MS_PRIVATE,
    "shared": syscalls.MS_SHARED,
    "slave": syscalls.MS_SLAVE,
    "unbindable": syscalls.MS_UNBINDABLE,
}
# Flags of a superblock: they go to the filesystem as words of its own.
_SUPERBLOCK = {"sync": "sync", "dirsync": "dirsync", "mand": "mand", "lazytime": "lazytime"}
_IGNORED = frozenset(
    ("defaults", "async", "nomand", "nolazytime", "loud", "silent", "iversion", "noiversion")
)
_RUNTIME = frozenset(
    (
        "bind",
        "rbind",
        "tmpcopyup",
        "idmap",
        "ridmap",
        "copy-symlink",
        "src-nofollow",
        "dest-nofollow",
        "remount",
    )
)
OPTIONS = tuple(
    sorted(
        {
            *_ATTRIBUTES,
            *(f"r{word}" for word in _ATTRIBUTES),
            *PROPAGATION,
            *(f"r{word}" for word in PROPAGATION),
            *_SUPERBLOCK,
            *_IGNORED,
            *_RUNTIME,
        }
    )
)


class IdMapping:
    """One range of ids."""

    __slots__ = ("container", "host", "size")

    def __init__(self, container: int, host: int, size: int) -> None:
        self.container = container
        self.host = host
        self.size = size

    def line(self) -> str:
        return f"{self.container} {self.host} {self.size}\n"


def mappings(node: Node, key: str) -> tuple[IdMapping, ...]:
    """A list of ranges that neither overlap nor leave the 32 bits."""
    result: list[IdMapping] = []
    for item in node.nodes(key):
        mapping = IdMapping(
            item.need_number("containerID", 0, U32 - 1),
            item.need_number("hostID", 0, U32 - 1),
            item.need_number("size", 1, U32),
        )
        if max(mapping.container, mapping.host) + mapping.size > U32:
            raise item.error("size", f"{mapping.size} leads beyond the last id")
        for other in result:
            if (
                mapping.container < other.container + other.size
                and other.container < mapping.container + mapping.size
            ) or (mapping.host < other.host + other.size and other.host < mapping.host + mapping.size):
                raise item.error("containerID", "overlaps an earlier range")
        result.append(mapping)
    if len(result) > 340:
        raise node.error(key, "the kernel takes at most 340 ranges")
    return tuple(result)


class Mount:
    """One mount: where, what, and how, with every option already a mask."""

    __slots__ = (
        "attr_clr",
        "attr_set",
        "bind",
        "copy_symlink",
        "copy_up",
        "data",
        "dest_nofollow",
        "destination",
        "gid_map",
        "idmap",
        "options",
        "path",
        "propagation",
        "rattr_clr",
        "rattr_set",
        "recursive",
        "remount",
        "rpropagation",
        "source",
        "src_nofollow",
        "superblock",
        "type",
        "uid_map",
    )

    def __init__(self, node: Node) -> None:
        self.path = node.path
        self.destination = node.need_text("destination")
        if not self.destination.startswith("/"):
            # Older configurations have relative ones; the specification's 1.x asks to take them from the
            # root.
            self.destination = "/" + self.destination
        self.source = node.text("source")
        self.type = node.text("type")
        self.attr_set = self.attr_clr = self.rattr_set = self.rattr_clr = 0
        self.propagation = self.rpropagation = 0
        self.bind = self.type in ("bind", "rbind")
        self.recursive = self.type == "rbind"
        self.copy_up = self.copy_symlink = self.src_nofollow = self.dest_nofollow = False
        self.idmap = ""
        self.remount = -1  # the place of that option
        self.data: list[str] = []
        self.superblock: list[str] = []
        self.options = node.texts("options")
        for index, option in enumerate(self.options):
            self._option(node, index, option)
        self.uid_map = mappings(node, "uidMappings")
        self.gid_map = mappings(node, "gidMappings")
        if bool(self.uid_map) != bool(self.gid_map):
            raise node.error("uidMappings", "uidMappings and gidMappings come together")
        if self.uid_map and not self.bind:
            raise node.error("uidMappings", "only a bind mount can be id-mapped")
        if self.idmap and not self.bind:
            raise node.error("options", f"{self.idmap!r} is only for a bind mount")
        if self.remount >= 0 and not self.bind:
            # A bind mount's attributes are its own from the beginning, so there it changes nothing.
            raise node.error(
                f"options[{self.remount}]", "'remount' of what is mounted there is not supported"
            )
        if self.uid_map and not self.idmap:
            self.idmap = "idmap"
        if self.bind and not self.source:
            raise node.error("source", "a bind mount needs one")
        if not self.bind and not self.type:
            raise node.error("type", "is required for what is not a bind mount")

    @property
    def own_propagation(self) -> int:
        """What its options ask for; 0: what the root filesystem has."""
        return self.propagation | self.rpropagation

    def _option(self, node: Node, index: int, option: str) -> None:
        recursive = option[:1] == "r" and option[1:] in _ATTRIBUTES and option not in _ATTRIBUTES
        word = option[1:] if recursive else option
        if word in _ATTRIBUTES:
            on, off = _ATTRIBUTES[word]
            if recursive:
                self.rattr_set = self.rattr_set & ~off | on
                self.rattr_clr = self.rattr_clr & ~on | off
            else:
                self.attr_set = self.attr_set & ~off | on
                self.attr_clr = self.attr_clr & ~on | off
        elif option in PROPAGATION:
            self.propagation = PROPAGATION[option]
        elif option[:1] == "r" and option[1:] in PROPAGATION:
            self.rpropagation = PROPAGATION[option[1:]]
        elif option in ("bind", "rbind"):
            self.bind = True
            self.recursive = self.recursive or option == "rbind"
        elif option in _SUPERBLOCK:
            self.superblock.append(option)
        elif option not in _IGNORED:
            self._special(node, index, option)

    def _special(self, node: Node, index: int, option: str) -> None:
        if option == "tmpcopyup":
            self.copy_up = True
        elif option == "remount":
            self.remount = index
        elif option in ("copy-symlink", "src-nofollow", "dest-nofollow"):
            setattr(self, option.replace("-", "_"), True)
        elif option.partition("=")[0] in ("idmap", "ridmap"):
            self.idmap = option
        elif not option:
            raise node.error(f"options[{index}]", "is empty")
        else:
            self.data.append(option)


def parse_mounts(node: Node) -> tuple[Mount, ...]:
    """All mounts, in order."""
    return tuple(Mount(item) for item in node.nodes("mounts"))


def propagation_of(node: Node, key: str) -> tuple[int, bool]:
    """`rootfsPropagation`: the flag and whether it is for the whole tree."""
    word = node.text(key)
    if not word:
        return 0, False
    choice(node.at(key), word, [prefix + name for name in PROPAGATION for prefix in ("", "r")])
    recursive = word not in PROPAGATION
    return PROPAGATION[word[1:] if recursive else word], recursive


def words(mount: Mount) -> Iterator[tuple[str, str | None]]:
    """What the filesystem itself is given: (key, value or None)."""
    for word in mount.superblock:
        yield word, None
    for option in mount.data:
        for part in _split(option):
            key, equals, value = part.partition("=")
            yield key, value if equals else None


def _split(option: str) -> list[str]:
    """`a=1,b` in one string, as some engines write it; overlay's own values may hold commas only escaped."""
    return [option] if "\\" in option or '"' in option else [part for part in option.split(",") if part]
