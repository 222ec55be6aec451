# SPDX-License-Identifier: Apache-2.0
"""Constants that the installed headers may lack, or that have the policy language's own words."""

from __future__ import annotations

import os
import socket
import stat

import pytest

from ringfence.policy import constants


def test_types_and_modes_are_those_of_stat() -> None:
    """inode(7)."""
    assert constants.FILE_TYPES == {
        "fifo": stat.S_IFIFO,
        "character-device": stat.S_IFCHR,
        "directory": stat.S_IFDIR,
        "block-device": stat.S_IFBLK,
        "file": stat.S_IFREG,
        "symlink": stat.S_IFLNK,
        "socket": stat.S_IFSOCK,
    }
    assert constants.MODE_BITS == {
        "setuid": stat.S_ISUID,
        "setgid": stat.S_ISGID,
        "sticky": stat.S_ISVTX,
        "others-write": stat.S_IWOTH,
        "execute": stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH,
    }


def test_flags_of_open_are_those_of_the_c_library() -> None:
    """Each that Python knows."""
    known = {name: bits for name, bits in constants.OPEN_FLAGS.items() if name.startswith("O_")}
    assert known == {name: getattr(os, name) for name in known}
    assert known.keys() >= {"O_CREAT", "O_EXCL", "O_TRUNC", "O_APPEND", "O_NONBLOCK", "O_PATH"}


def test_commands_of_the_kernels_log_are_those_of_syslog_2() -> None:
    """Numbered from 0."""
    names = "CLOSE OPEN READ READ_ALL READ_CLEAR CLEAR CONSOLE_OFF CONSOLE_ON CONSOLE_LEVEL"
    names += " SIZE_UNREAD SIZE_BUFFER"
    expected = {f"SYSLOG_ACTION_{name}": number for number, name in enumerate(names.split())}
    assert expected == constants.SYSLOG_TYPES


@pytest.mark.parametrize(
    ("name", "magic"),
    [
        ("ramfs", 0x858458F6), ("devpts", 0x1CD1), ("squashfs", 0x73717368), ("vfat", 0x4D44),
        ("iso9660", 0x9660), ("securityfs", 0x73636673), ("selinuxfs", 0xF97CFF8C), ("configfs", 0x62656570),
        ("efivarfs", 0xDE5E81E4), ("pstore", 0x6165676C), ("fuse", 0x65735546), ("hugetlbfs", 0x958458F6),
        ("mqueue", 0x19800202), ("pipefs", 0x50495045), ("sockfs", 0x534F434B), ("nfs", 0x6969),
        ("ceph", 0x00C36400), ("9p", 0x01021997), ("zfs", 0x2FC12FC1), ("rpc_pipefs", 0x67596969),
    ],
)  # fmt: skip
def test_other_filesystems_have_the_magic_of_their_sources(name: str, magic: int) -> None:
    """statfs(2); zfs_znode.h and rpc_pipe.c for the last two."""
    assert constants.FILESYSTEMS[name] == (magic,)


@pytest.mark.parametrize(
    ("level", "names"),
    [
        # linux/netfilter_ipv4/ip_tables.h, linux/netfilter_arp, linux/netfilter_bridge: by SOL_IP
        (0, {"IPT_SO_SET_REPLACE": 64, "IPT_SO_SET_ADD_COUNTERS": 65, "ARPT_SO_SET_REPLACE": 96,
             "EBT_SO_SET_ENTRIES": 128}),
        (41, {"IP6T_SO_SET_REPLACE": 64, "IP6T_SO_SET_ADD_COUNTERS": 65, "IPV6_XFRM_POLICY": 35}),
        (263, {"PACKET_RX_RING": 5, "PACKET_VERSION": 10, "PACKET_TX_RING": 13, "PACKET_FANOUT": 18}),
        (6, {"TCP_REPAIR": 19, "TCP_ULP": 31}),
        (17, {"UDP_ENCAP": 100}),
        (279, {"ALG_SET_KEY": 1}),
    ],
)  # fmt: skip
def test_an_option_of_a_socket_has_its_level(level: int, names: dict[str, int]) -> None:
    """Above the number of the option."""
    found = {name: constants.SOCKET_OPTIONS[name] for name in names}
    assert found == {name: level << 32 | number for name, number in names.items()}


def test_levels_and_flags_are_those_of_the_manual_pages() -> None:
    """umount2(2), memfd_create(2), and the C library's levels."""
    assert constants.UMOUNT_FLAGS == {
        "MNT_FORCE": 1,
        "MNT_DETACH": 2,
        "MNT_EXPIRE": 4,
        "UMOUNT_NOFOLLOW": 8,
    }
    assert (constants.MEMFD_FLAGS["MFD_NOEXEC_SEAL"], constants.MEMFD_FLAGS["MFD_EXEC"]) == (0x8, 0x10)
    for name in ("SOL_IP", "SOL_SOCKET", "SOL_TCP", "SOL_UDP"):
        assert constants.SOCKET_LEVELS[name] == getattr(socket, name)
    assert (constants.SOCKET_LEVELS["SOL_IPV6"], constants.SOCKET_LEVELS["SOL_SCTP"]) == (
        socket.IPPROTO_IPV6,
        socket.IPPROTO_SCTP,
    )


def test_commands_of_quotas_are_those_of_their_headers() -> None:
    """linux/quota.h and linux/dqblk_xfs.h: the command is above the type's eight bits."""
    generic = "SYNC QUOTAON QUOTAOFF GETFMT GETINFO SETINFO GETQUOTA SETQUOTA GETNEXTQUOTA"
    xfs = "XQUOTAON XQUOTAOFF XGETQUOTA XSETQLIM XGETQSTAT XQUOTARM XQUOTASYNC XGETQSTATV XGETNEXTQUOTA"
    expected = {f"Q_{name}": 0x800001 + number << 8 for number, name in enumerate(generic.split())}
    expected |= {f"Q_{name}": (ord("X") << 8) + number << 8 for number, name in enumerate(xfs.split(), 1)}
    assert {name: constants.QUOTA_COMMANDS[name] for name in expected} == expected


def test_a_word_of_several_filesystems_is_all_of_them() -> None:
    """Of what a node's disks have, of both versions of cgroups, and of both of SMB (statfs(2))."""
    found = constants.FILESYSTEMS

    def together(*words: str) -> tuple[int, ...]:
        return tuple(magic for word in words for magic in found[word])

    assert found["disk"] == together("ext4", "xfs", "btrfs", "f2fs")
    assert found["cgroup"] == together("cgroup1", "cgroup2")
    assert found["cifs"] == (0xFF534D42, 0xFE534D42)
