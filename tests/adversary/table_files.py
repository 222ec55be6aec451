# SPDX-License-Identifier: Apache-2.0
"""Attacks on files of the host: by path, by object, by name, and from the container's volumes."""

from __future__ import annotations

from tests.adversary.attack import Attack
from tests.adversary.effects import (
    aged,
    exists,
    gone,
    mode_is,
    nodump,
    planted,
    received,
    secret_shown,
    written,
    xattr_set,
)
from tests.adversary.kinds import ALL, CAPS, DOCKER, PRIV

__all__ = ["ATTACKS"]

_ROOT = "/proc/{victim}/root{target}"
_NAMES = (
    ("symlink", "link file", exists("{target}/link")),
    ("mkdir", "made", exists("{target}/made")),
    ("unlink", "file", gone("{target}/file")),
    ("rename", "file moved", exists("{target}/moved")),
    ("link", "file also", exists("{target}/also")),
    ("chmod", "file", mode_is("{target}/file", 0o777)),
    ("mknod", "pipe", exists("{target}/pipe")),
)


def _named(cls: str, where: str, label: str, ways: tuple[str, ...]) -> tuple[Attack, ...]:
    """Returns an attack for every call on names, and more ways to the directory for two of them."""
    return tuple(
        Attack(
            cls,
            f"{call} by {way or 'descriptor'}{label}",
            f"name{way and '_' + way} {call} {where} {words}",
            f"name{way and '_' + way} {call} {{volume}} {words}",
            effect,
            (PRIV,),
            short=(cls, call, way) in {("B8", "symlink", "path"), ("B8", "mkdir", "")},
        )
        for call, words, effect in _NAMES
        for way in ways
        if way == "path" or call in ("mkdir", "rename")
    )


#: files that lead to code execution on the host, in no list of names
_UNLISTED = (
    "opt/{x}", "etc/{x}", "etc/alternatives/{x}", "etc/apt/{x}", "root/.{x}", "{x}", "var/{x}", "var/lib/{x}",
    "var/lib/dpkg/info/{x}", "var/cache/{x}", "usr/share/{x}", "usr/{x}", "run/{x}", "lib/{x}",
)  # fmt: skip
#: in the list, but on a root that is no disk filesystem
_LISTED = ("etc/cron.d/{x}", "usr/bin/{x}", "usr/lib/{x}", "root/.ssh/{x}", "etc/systemd/{x}")

_HOSTS = tuple(
    Attack(
        "B1",
        f"{place} /{path.format(x='x')}",
        f"write {prefix}/{path.format(x='rf-{token}')} {{token}}",
        "write {volume}/x {token}",
        planted(f"{outside}/{path.format(x='rf-{token}')}"),
        (PRIV,),
        guest=True,
        short=path == "opt/{x}" and place == "root",
    )
    for place, prefix, outside, paths in (
        ("root", "/host", "", _UNLISTED + _LISTED),
        ("disk", "/host{disk}", "{disk}", _UNLISTED[:3] + _LISTED[:2]),
    )
    for path in paths
)

#: ways to write one file
_WAYS = (
    ("write", "{0}/file {token}", "file"),
    ("append", "{0}/file {token}", "file"),
    ("write_openat2", "{0}/new {token}", "new"),
    ("write_32bit", "{0}/new {token}", "new"),
    ("write_again", "{0}/file {token}", "file"),
    ("write_map", "{0}/new {token}", "new"),
    ("write_below", "{0} new {token}", "new"),
    ("write_root", "{0} new {token}", "new"),
    ("write_unnamed", "{0} new {token}", "new"),
    ("replace", "{0}/file {token} {0}/from", "file"),
    ("other_name", "{0}/file {token} {0}/also", "file"),
)
_BY_WAY = tuple(
    Attack(
        "B1",
        f"{call} in /run",
        f"{call} {words.replace('{0}', '{host}')}",
        f"{call} {words.replace('{0}', '{volume}')}",
        written(f"{{target}}/{name}"),
        (PRIV,),
        short=call == "write_32bit",
    )
    for call, words, name in _WAYS
)
#: the root directory of another container, by a hostPath to where its engine mounts it
_ANOTHERS = (
    Attack("B1", "write in a root of another", "write /engine/rootfs/etc/x-{token} {token}",
           "write {volume}/x {token}", written("{rootfs}/etc/x-{token}"), (PRIV,), short=True),
    Attack("B1", "write_map in a root of another", "write_map /engine/rootfs/x-{token} {token}",
           "write_map {volume}/x {token}", written("{rootfs}/x-{token}"), (PRIV,)),
    Attack("B1", "symlink in a root of another", "name_path symlink /engine/rootfs/etc link-{token} /",
           "name_path symlink {volume} link /", exists("{rootfs}/etc/link-{token}"), (PRIV,)),
    Attack("B1", "chmod in a root of another", "name_path chmod /engine/rootfs/etc passwd",
           "name_path chmod {volume} file", mode_is("{rootfs}/etc/passwd", 0o777), (PRIV,)),
)  # fmt: skip
#: device nodes, which may lie on any filesystem of the host
_NODES = (
    Attack("B1", "chmod of a device node", "name_path chmod {host} null", "name_path chmod {volume} null",
           mode_is("{target}/null", 0o777), (PRIV,), short=True),
    Attack("B1", "rename of a device node", "name_path rename {host} null moved",
           "name_path rename {volume} null moved", exists("{target}/moved"), (PRIV,)),
    Attack("B1", "unlink of a device node", "name_path unlink {host} null", "name_path unlink {volume} null",
           gone("{target}/null"), (PRIV,)),
    Attack("B1", "mknod of a device", "name_path device {host} made", "name_path device {volume} made",
           exists("{target}/made"), (PRIV,)),
    Attack("B1", "mknod of a device in /dev", "name_path device /host/dev made-{token}",
           "name_path device {volume} made", exists("/dev/made-{token}"), (PRIV,), guest=True),
)  # fmt: skip
_RACE = Attack(
    "B1",
    "a link that leads here and there",
    "write_race {volume}/file {host}/file {token}",
    "write {volume}/file {token}",
    written("{target}/file"),
    (PRIV,),
)

#: by a process of the host: its root, its working directory
_FOREIGN = tuple(
    Attack(
        "B8",
        f"{call} by root of a process",
        f"{call} {words.replace('{0}', _ROOT)}",
        f"{call} {words.replace('{0}', '{volume}')}",
        written(f"{{target}}/{name}"),
        (PRIV,),
    )
    for call, words, name in _WAYS
)
_TRUNCATE = Attack(
    "B8", "truncate by root of a process", f"truncate {_ROOT}/file", "truncate {volume}/file",
    lambda one: (one.target / "file").stat().st_size == 0, (PRIV,),
)  # fmt: skip

_CAPABILITIES = tuple(
    Attack(
        "C3",
        f"{call} in {label}",
        f"{call} {where}/file security.capability",
        "xattr /etc/passwd security.capability",
        xattr_set(f"{outside}/file", "security.capability"),
        kinds,
        short=label == "a volume" and call == "xattr",
    )
    for call in ("xattr", "fxattr")
    for label, where, outside, kinds in (
        ("a volume", "{volume}", "{given}", ALL),
        ("a host's directory", "{host}", "{target}", (PRIV,)),
    )
)

#: the image's package manager stores privilege on a volume
_PACKAGES = tuple(
    Attack(
        "C2",
        f"{call} of a package manager",
        f"exec /bin/rpm {call} {{volume}}/{name} {words}",
        f"exec /bin/rpm {call} /tmp/{{token}}-{name} {words}" if call == "setid_new" else
        f"exec /bin/rpm {call} /etc/passwd {words}",
        effect,
        short=call == "setid",
        guest=True,
    )
    for call, name, words, effect in (
        ("setid", "file", "", mode_is("{given}/file", 0o4755)),
        ("setid_new", "new", "", mode_is("{given}/new", 0o4755)),
        ("xattr", "file", "security.capability", xattr_set("{given}/file", "security.capability")),
    )
)  # fmt: skip

#: the kubelet follows links below /var/log as root
_HERE, _BELOW = "{volume}", "{volume}/below"
_LOGS = tuple(
    Attack("B1", f"{name} in the host's logs", f"{call} {words} {{volume}}/file",
           f"{call} {words.replace('/host/var/log', _HERE).replace('/host/var/tmp', _BELOW)} file",
           exists("/var/log/rf-{token}"), (PRIV,), guest=True, short=name == "a link moved")
    for name, call, words in (
        ("a link made", "name_path", "symlink /host/var/log rf-{token}"),
        ("a link moved", "link_into", "rename /host/var/tmp/rf-{token} /host/var/log/rf-{token}"),
        ("another name of a link", "link_into", "link /host/var/tmp/rf-{token} /host/var/log/rf-{token}"),
        ("a directory with a link moved", "link_within",
         "rename /host/var/tmp/rf-{token} /host/var/log/rf-{token}"),
    )
)  # fmt: skip

#: attributes, by a descriptor that is only for reading or by the path
_ATTRIBUTES = tuple(
    Attack("B1", f"{name} of a file", f"{call} {{host}}/file",
           f"{'times' if call == 'file_setattr' else call} {{volume}}/file", effect, (PRIV,),
           guest=True, short=call == "flags")
    for call, name, effect in (
        ("flags", "inode flags", nodump("{target}/file")),
        ("xflags", "flags of XFS", nodump("{target}/file")),
        ("file_setattr", "flags by file_setattr", nodump("{target}/file")),
        ("times", "times", aged("{target}/file")),
    )
)  # fmt: skip

_PIPES = tuple(
    Attack("C5", label, f"{call} {where}/host.fifo {{token}}", "write {volume}/file {token}", received, kinds,
           short=label == "given")
    for call, label, where, kinds in (
        ("append", "given", "/given", (DOCKER, CAPS, PRIV)),
        ("append", "by path", "/host{run}", (PRIV,)),
        ("append", "by root of a process", "/proc/{victim}/root{run}", (PRIV,)),
        ("write_again", "opened again", "/host{run}", (PRIV,)),
    )
)  # fmt: skip

_READ = (
    Attack("B8", "read by root of a process", "read /proc/{victim}/root{run}/secret", "read /etc/passwd",
           secret_shown, (PRIV,)),
    Attack("B8", "read by working directory", "read /proc/{victim}/cwd{run}/secret",
           "read /proc/self/cwd/etc/passwd", secret_shown, (PRIV,)),
)  # fmt: skip

ATTACKS: tuple[Attack, ...] = (
    *_named("B8", _ROOT, "", ("path", "", "cwd", "root")),
    *_named("B1", "{host}", " in /run", ("path", "")),
    *_HOSTS,
    *_BY_WAY,
    *_ANOTHERS,
    *_NODES,
    _RACE,
    *_FOREIGN,
    _TRUNCATE,
    *_CAPABILITIES,
    *_PACKAGES,
    *_LOGS,
    *_ATTRIBUTES,
    *_PIPES,
    *_READ,
)
