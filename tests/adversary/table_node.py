# SPDX-License-Identifier: Apache-2.0
"""Attacks on sockets, the network, devices and the kernel of the node."""

from __future__ import annotations

from tests.adversary.attack import Attack
from tests.adversary.effects import (
    accounted,
    clock_moved,
    device_held,
    frozen,
    parameter,
    received,
    secret_shown,
    shut_down,
    stalled,
    swapped,
    upcall,
    written,
)
from tests.adversary.kinds import ALL, CAPS, PRIV

__all__ = ["ATTACKS"]

_ROOT = "/proc/{victim}/root{run}"
_SOCKETS = tuple(
    Attack("B2", name, words, "connect_own {token}", effect, kinds, short=name in ("given", "by path"))
    for name, words, effect, kinds in (
        ("given", "connect /given/bus.sock", secret_shown, ALL),
        ("given, by a link", "connect_link /given/bus.sock", secret_shown, ALL),
        ("given, 32-bit call", "connect_32bit /given/bus.sock", secret_shown, ALL),
        ("by path", "connect /host{run}/bus.sock", secret_shown, (PRIV,)),
        ("by a link", "connect_link /host{run}/bus.sock", secret_shown, (PRIV,)),
        ("by a directory", "connect_below /host{run} bus.sock", secret_shown, (PRIV,)),
        ("by the working directory", "connect_cwd /host{run} bus.sock", secret_shown, (PRIV,)),
        ("by 32-bit call", "connect_32bit /host{run}/bus.sock", secret_shown, (PRIV,)),
        ("by root of a process", f"connect {_ROOT}/bus.sock", secret_shown, (PRIV,)),
        ("by root of a process, a link", f"connect_link {_ROOT}/bus.sock", secret_shown, (PRIV,)),
        ("by root of a process, a directory", f"connect_below {_ROOT} bus.sock", secret_shown, (PRIV,)),
        ("packets in order", "connect_seqpacket /host{run}/seq.sock", secret_shown, (PRIV,)),
        ("a datagram", "send /host{run}/dgram.sock {token}", received, (PRIV,)),
        ("a datagram by root of a process", f"send {_ROOT}/dgram.sock {{token}}", received, (PRIV,)),
        ("abstract", "connect @{abstract}", secret_shown, (PRIV,)),
    )
)  # fmt: skip

_METADATA = "169.254.169.254 80 {token}"
_PACKETS = tuple(
    Attack("B7", name, words, twin, received, kinds, guest=True, short=name in ("udp", "raw socket"))
    for name, words, twin, kinds in (
        ("udp", f"udp {_METADATA}", "udp 10.99.0.1 9 x", ALL),
        ("tcp", f"tcp {_METADATA}", "udp 10.99.0.1 9 x", ALL),
        ("raw socket", f"raw {_METADATA}", "ping 10.99.0.1", ALL),
        ("raw socket, another destination", f"raw_aside {_METADATA}", "ping 10.99.0.1", ALL),
        ("raw socket of UDP", f"raw_udp {_METADATA}", "ping 10.99.0.1", ALL),
        ("raw socket of UDP, connected", f"raw_connected {_METADATA}", "ping 10.99.0.1", ALL),
        ("raw socket of an unused protocol", f"raw {_METADATA} 253", "ping 10.99.0.1", ALL),
        ("NAT of its own", "tool /usr/sbin/nft -f {volume}/nat.nft -- udp 192.0.2.7 9 {token}",
         "tool /usr/sbin/nft -f {volume}/own.nft -- udp 192.0.2.17 9 x", (CAPS,)),
        ("rewritten by traffic control",
         "tool /usr/sbin/tc -batch {volume}/rewrite.tc -- udp 192.0.2.8 80 {token}",
         "tool /usr/sbin/tc -batch {volume}/own.tc -- udp 192.0.2.18 80 x", (CAPS,)),
        ("an interface of its own", f"tun {_METADATA}", "ping 10.99.0.1", (PRIV,)),
    )
)  # fmt: skip

_EXCEPTIONS = tuple(
    Attack("C2", name, words, "exec /usr/local/bin/other tcp 127.0.0.1 10251 x", secret_shown, (PRIV,),
           guest=True)
    for name, words in (
        ("kubelet, without an exception", "tcp 127.0.0.1 10250 x"),
        ("a copy with the name", "as /usr/local/bin/kube-apiserver tcp 127.0.0.1 10250 x"),
        ("traced", "traced /usr/local/bin/kube-apiserver tcp 127.0.0.1 10250 x"),
        ("with executable memory", "exec /usr/local/bin/kube-apiserver tcp_mapped 127.0.0.1 10250 x"),
    )
)  # fmt: skip

#: a dynamic number by the driver's name, or fixed numbers
_DEVICES = tuple(
    Attack("B4", name, f"device {number} {flags}", "device 1 3 2", device_held(number), (PRIV,), guest=True,
           short=name == "rtc")
    for name, number, flags in (
        ("rtc", "{rtc} 0", 0), ("console of the node", "4 64", 2), ("screen of the node", "7 1", 2),
        ("virtual terminal", "4 1", 2), ("hpet", "10 228", 0),
        ("memory heap", "{dma_heap} 0", 0), ("memory", "1 1", 0), ("kernel's log", "1 11", 0),
    )
)  # fmt: skip

_CALLS = (
    Attack(
        "B5",
        "swap",
        "swap {volume}/swap",
        "write {volume}/file x",
        swapped,
        (CAPS, PRIV),
        guest=True,
        short=True,
    ),
    Attack("B5", "clock", "settime 100", "gettime", clock_moved, (CAPS, PRIV), guest=True, short=True),
    Attack("B5", "clock by adjtimex", "adjtime 100", "gettime", clock_moved, (CAPS, PRIV), guest=True),
    Attack("B5", "accounting", "acct {volume}/file", "gettime", accounted, (PRIV,), guest=True),
)
_SYSFS = tuple(
    Attack("B6", name, f"write {path} {value}", "read /sys/class/net/lo/mtu", parameter(path, value, before),
           (PRIV,), guest=True, short=name == "parameter of a module")
    for name, path, value, before in (
        ("parameter of a module", "/sys/module/printk/parameters/ignore_loglevel", "Y", "N"),
        ("power", "/sys/power/pm_freeze_timeout", "20001", "20000"),
        ("PCI", "/sys/bus/pci/drivers_autoprobe", "0", "1"),
        ("memory management", "/sys/kernel/mm/transparent_hugepage/khugepaged/pages_to_scan", "4097", "4096"),
    )
)  # fmt: skip

_WATCHES = tuple(
    Attack("B9", f"{mark} of {label}", f"fanotify {mark} {where} {{token}}", "inotify {volume}",
           written("{target}/file"), (PRIV,), guest=True, short=(mark, label) == ("inode", "the host"))
    for mark in ("inode", "mount", "filesystem")
    for label, where in (("the host", "{host}/file"), ("a process", "/proc/{victim}/root{target}/file"))
) + (
    Attack("B9", "filesystem of what is given", "fanotify filesystem /given {token}",
           "inotify {volume}", written("{target}/file"), (CAPS,), guest=True),
    Attack("B9", "opens of the host stall", "fanotify_stall {host} 4000", "inotify {volume}", stalled,
           (PRIV,), guest=True),
    Attack("B9", "opens of the host stall by a lease", "lease {host}/file 4000", "inotify {volume}", stalled,
           (PRIV,), guest=True, short=True),
)  # fmt: skip

_FREEZE, _SHUTDOWN = 0xC0045877, 0x8004587D
_FILESYSTEMS = tuple(
    Attack("B10", name, f"{call} {number} /host{{disk}}", "read /host{disk}/etc/passwd", effect, (PRIV,),
           guest=True, alone=True, short=name == "freeze")
    for name, call, number, effect in (
        ("freeze", "filesystem_ioctl", _FREEZE, frozen),
        ("freeze by 32-bit call", "filesystem_ioctl_32bit", _FREEZE, frozen),
        ("shutdown", "filesystem_ioctl", _SHUTDOWN, shut_down),
        ("shutdown by 32-bit call", "filesystem_ioctl_32bit", _SHUTDOWN, shut_down),
    )
)  # fmt: skip

_UEVENTS = tuple(
    Attack("C1", name, f"uevent {{token}} {group}", "netlink", received, (PRIV,), guest=True,
           short=name == "from the kernel")
    for name, group in (("from the kernel", 0), ("as the kernel", 1), ("as udev", 2))
)  # fmt: skip

_KEYS = tuple(
    Attack("C6", f"key of type {kind}", f"request_key {kind} {{token}}", "keyring", upcall, ALL, guest=True,
           short=kind == "user")
    for kind in ("user", "logon")
)  # fmt: skip

ATTACKS: tuple[Attack, ...] = (
    *_SOCKETS,
    *_PACKETS,
    *_EXCEPTIONS,
    *_DEVICES,
    *_CALLS,
    *_SYSFS,
    *_WATCHES,
    *_FILESYSTEMS,
    *_UEVENTS,
    *_KEYS,
)
