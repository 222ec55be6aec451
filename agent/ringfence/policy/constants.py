# SPDX-License-Identifier: Apache-2.0
"""The kernel's constants by name: the vocabulary of policies, with their values in calls and objects.

Names and numbers are those of the UAPI headers; a test compiles against the headers to compare. No logic.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "BPF_COMMANDS",
    "CLONE_FLAGS",
    "FANOTIFY_FLAGS",
    "FILESYSTEMS",
    "FILE_TYPES",
    "FSCONFIG_COMMANDS",
    "IOCTL_REQUESTS",
    "KEYCTL_OPERATIONS",
    "MEMFD_FLAGS",
    "MODE_BITS",
    "MOUNT_FLAGS",
    "NAMESPACE_FLAGS",
    "OPEN_FLAGS",
    "OPEN_TREE_FLAGS",
    "PERSONALITY_FLAGS",
    "PROTOCOLS",
    "PTRACE_REQUESTS",
    "QUOTA_COMMANDS",
    "REBOOT_COMMANDS",
    "RENAME_FLAGS",
    "SECCOMP_OPERATIONS",
    "SIGNALS",
    "SOCKET_FAMILIES",
    "SOCKET_LEVELS",
    "SOCKET_OPTIONS",
    "SOCKET_TYPES",
    "SYSLOG_TYPES",
    "UMOUNT_FLAGS",
]


def _numbered(names: str, start: int = 0) -> dict[str, int]:
    return {name: number for number, name in enumerate(names.split(), start)}


#: linux/sched.h
NAMESPACE_FLAGS: Mapping[str, int] = {
    "CLONE_NEWTIME": 0x80,
    "CLONE_NEWNS": 0x20000,
    "CLONE_NEWCGROUP": 0x2000000,
    "CLONE_NEWUTS": 0x4000000,
    "CLONE_NEWIPC": 0x8000000,
    "CLONE_NEWUSER": 0x10000000,
    "CLONE_NEWPID": 0x20000000,
    "CLONE_NEWNET": 0x40000000,
}
CLONE_FLAGS: Mapping[str, int] = {
    **NAMESPACE_FLAGS,
    "CLONE_VM": 0x100,
    "CLONE_FS": 0x200,
    "CLONE_FILES": 0x400,
    "CLONE_SIGHAND": 0x800,
    "CLONE_PIDFD": 0x1000,
    "CLONE_PTRACE": 0x2000,
    "CLONE_VFORK": 0x4000,
    "CLONE_PARENT": 0x8000,
    "CLONE_THREAD": 0x10000,
    "CLONE_SYSVSEM": 0x40000,
    "CLONE_SETTLS": 0x80000,
    "CLONE_UNTRACED": 0x800000,
    "CLONE_IO": 0x80000000,
}
#: linux/mount.h
MOUNT_FLAGS: Mapping[str, int] = {
    "MS_RDONLY": 1,
    "MS_NOSUID": 2,
    "MS_NODEV": 4,
    "MS_NOEXEC": 8,
    "MS_SYNCHRONOUS": 16,
    "MS_REMOUNT": 32,
    "MS_BIND": 4096,
    "MS_MOVE": 8192,
    "MS_REC": 16384,
    "MS_SILENT": 32768,
    "MS_UNBINDABLE": 1 << 17,
    "MS_PRIVATE": 1 << 18,
    "MS_SLAVE": 1 << 19,
    "MS_SHARED": 1 << 20,
    "MS_RELATIME": 1 << 21,
}
UMOUNT_FLAGS: Mapping[str, int] = {"MNT_FORCE": 1, "MNT_DETACH": 2, "MNT_EXPIRE": 4, "UMOUNT_NOFOLLOW": 8}
#: linux/fs.h
RENAME_FLAGS: Mapping[str, int] = {"RENAME_NOREPLACE": 1, "RENAME_EXCHANGE": 2, "RENAME_WHITEOUT": 4}
OPEN_TREE_FLAGS: Mapping[str, int] = {
    "OPEN_TREE_CLONE": 1,
    "OPEN_TREE_NAMESPACE": 2,
    "OPEN_TREE_CLOEXEC": 0o2000000,
    "AT_RECURSIVE": 0x8000,
    "AT_EMPTY_PATH": 0x1000,
}
FSCONFIG_COMMANDS: Mapping[str, int] = _numbered(
    "FSCONFIG_SET_FLAG FSCONFIG_SET_STRING FSCONFIG_SET_BINARY FSCONFIG_SET_PATH FSCONFIG_SET_PATH_EMPTY "
    "FSCONFIG_SET_FD FSCONFIG_CMD_CREATE FSCONFIG_CMD_RECONFIGURE"
)
#: linux/ptrace.h
PTRACE_REQUESTS: Mapping[str, int] = {
    **_numbered(
        "PTRACE_TRACEME PTRACE_PEEKTEXT PTRACE_PEEKDATA PTRACE_PEEKUSR PTRACE_POKETEXT PTRACE_POKEDATA "
        "PTRACE_POKEUSR PTRACE_CONT PTRACE_KILL PTRACE_SINGLESTEP"
    ),
    "PTRACE_ATTACH": 16,
    "PTRACE_DETACH": 17,
    "PTRACE_SYSCALL": 24,
    **_numbered(
        "PTRACE_SETOPTIONS PTRACE_GETEVENTMSG PTRACE_GETSIGINFO PTRACE_SETSIGINFO PTRACE_GETREGSET "
        "PTRACE_SETREGSET PTRACE_SEIZE PTRACE_INTERRUPT PTRACE_LISTEN PTRACE_PEEKSIGINFO PTRACE_GETSIGMASK "
        "PTRACE_SETSIGMASK PTRACE_SECCOMP_GET_FILTER PTRACE_SECCOMP_GET_METADATA PTRACE_GET_SYSCALL_INFO",
        0x4200,
    ),
}
#: linux/bpf.h
BPF_COMMANDS: Mapping[str, int] = _numbered(
    "BPF_MAP_CREATE BPF_MAP_LOOKUP_ELEM BPF_MAP_UPDATE_ELEM BPF_MAP_DELETE_ELEM BPF_MAP_GET_NEXT_KEY "
    "BPF_PROG_LOAD BPF_OBJ_PIN BPF_OBJ_GET BPF_PROG_ATTACH BPF_PROG_DETACH BPF_PROG_TEST_RUN "
    "BPF_PROG_GET_NEXT_ID BPF_MAP_GET_NEXT_ID BPF_PROG_GET_FD_BY_ID BPF_MAP_GET_FD_BY_ID "
    "BPF_OBJ_GET_INFO_BY_FD BPF_PROG_QUERY BPF_RAW_TRACEPOINT_OPEN BPF_BTF_LOAD BPF_BTF_GET_FD_BY_ID "
    "BPF_TASK_FD_QUERY BPF_MAP_LOOKUP_AND_DELETE_ELEM BPF_MAP_FREEZE BPF_BTF_GET_NEXT_ID "
    "BPF_MAP_LOOKUP_BATCH BPF_MAP_LOOKUP_AND_DELETE_BATCH BPF_MAP_UPDATE_BATCH BPF_MAP_DELETE_BATCH "
    "BPF_LINK_CREATE BPF_LINK_UPDATE BPF_LINK_GET_FD_BY_ID BPF_LINK_GET_NEXT_ID BPF_ENABLE_STATS "
    "BPF_ITER_CREATE BPF_LINK_DETACH BPF_PROG_BIND_MAP"
)
#: asm-generic/fcntl.h (x86-64); O_PATH opens count as reads of nothing
OPEN_FLAGS: Mapping[str, int] = {
    "O_CREAT": 0o100,
    "O_EXCL": 0o200,
    "O_TRUNC": 0o1000,
    "O_APPEND": 0o2000,
    "O_NONBLOCK": 0o4000,
    "O_PATH": 0o10000000,
    "removed": 1 << 29,  # the same: an unlink
    "moved": 1 << 30,  # defined by the probes: a link or a rename, see probes/lsm_dentry_ops.bpf.c
}
#: linux/stat.h
FILE_TYPES: Mapping[str, int] = {
    "fifo": 0o010000,
    "character-device": 0o020000,
    "directory": 0o040000,
    "block-device": 0o060000,
    "file": 0o100000,
    "symlink": 0o120000,
    "socket": 0o140000,
}
MODE_BITS: Mapping[str, int] = {
    "setuid": 0o4000,
    "setgid": 0o2000,
    "sticky": 0o1000,
    "others-write": 0o002,
    "execute": 0o111,
}
MEMFD_FLAGS: Mapping[str, int] = {
    "MFD_CLOEXEC": 1,
    "MFD_ALLOW_SEALING": 2,
    "MFD_HUGETLB": 4,
    "MFD_NOEXEC_SEAL": 8,
    "MFD_EXEC": 16,
}
#: linux/keyctl.h
KEYCTL_OPERATIONS: Mapping[str, int] = _numbered(
    "KEYCTL_GET_KEYRING_ID KEYCTL_JOIN_SESSION_KEYRING KEYCTL_UPDATE KEYCTL_REVOKE KEYCTL_CHOWN "
    "KEYCTL_SETPERM KEYCTL_DESCRIBE KEYCTL_CLEAR KEYCTL_LINK KEYCTL_UNLINK KEYCTL_SEARCH KEYCTL_READ "
    "KEYCTL_INSTANTIATE KEYCTL_NEGATE KEYCTL_SET_REQKEY_KEYRING KEYCTL_SET_TIMEOUT KEYCTL_ASSUME_AUTHORITY "
    "KEYCTL_GET_SECURITY KEYCTL_SESSION_TO_PARENT KEYCTL_REJECT KEYCTL_INSTANTIATE_IOV KEYCTL_INVALIDATE "
    "KEYCTL_GET_PERSISTENT"
)
#: linux/socket.h of the kernel, bits/socket.h of the C library
SOCKET_FAMILIES: Mapping[str, int] = {
    **_numbered(
        "AF_UNSPEC AF_UNIX AF_INET AF_AX25 AF_IPX AF_APPLETALK AF_NETROM AF_BRIDGE AF_ATMPVC AF_X25 AF_INET6 "
        "AF_ROSE AF_DECnet AF_NETBEUI AF_SECURITY AF_KEY AF_NETLINK AF_PACKET AF_ASH AF_ECONET AF_ATMSVC "
        "AF_RDS AF_SNA AF_IRDA AF_PPPOX AF_WANPIPE AF_LLC AF_IB AF_MPLS AF_CAN AF_TIPC AF_BLUETOOTH AF_IUCV "
        "AF_RXRPC AF_ISDN AF_PHONET AF_IEEE802154 AF_CAIF AF_ALG AF_NFC AF_VSOCK "
        "AF_KCM AF_QIPCRTR AF_SMC AF_XDP"
    ),
    "AF_MCTP": 45,
}
SOCKET_TYPES: Mapping[str, int] = {
    "SOCK_STREAM": 1,
    "SOCK_DGRAM": 2,
    "SOCK_RAW": 3,
    "SOCK_RDM": 4,
    "SOCK_SEQPACKET": 5,
    "SOCK_DCCP": 6,
    "SOCK_PACKET": 10,
}
#: linux/socket.h; SOL_IP is 0 and SOL_SOCKET 1, others are the protocol's number or begin at 255
SOCKET_LEVELS: Mapping[str, int] = {
    "SOL_IP": 0,
    "SOL_SOCKET": 1,
    "SOL_TCP": 6,
    "SOL_UDP": 17,
    "SOL_IPV6": 41,
    "SOL_SCTP": 132,
    "SOL_RAW": 255,
    "SOL_PACKET": 263,
    "SOL_NETLINK": 270,
    "SOL_TIPC": 271,
    "SOL_RDS": 276,
    "SOL_ALG": 279,
    "SOL_TLS": 282,
    "SOL_XDP": 283,
}


def _options(level: str, **numbers: int) -> dict[str, int]:
    return {name: SOCKET_LEVELS[level] << 32 | number for name, number in numbers.items()}


#: options that attacks on the kernel use, each with its level in the upper half: linux/netfilter_*.h,
#: linux/if_packet.h, asm/socket.h, linux/tcp.h, linux/udp.h, linux/in.h, linux/in6.h, linux/if_alg.h
SOCKET_OPTIONS: Mapping[str, int] = {
    **_options("SOL_IP", IPT_SO_SET_REPLACE=64, IPT_SO_SET_ADD_COUNTERS=65, ARPT_SO_SET_REPLACE=96),
    **_options("SOL_IP", EBT_SO_SET_ENTRIES=128, IP_XFRM_POLICY=17, MCAST_MSFILTER=48),
    **_options("SOL_IPV6", IP6T_SO_SET_REPLACE=64, IP6T_SO_SET_ADD_COUNTERS=65, IPV6_XFRM_POLICY=35),
    **_options("SOL_SOCKET", SO_ATTACH_FILTER=26, SO_ATTACH_BPF=50, SO_BINDTODEVICE=25, SO_MARK=36),
    **_options("SOL_PACKET", PACKET_RX_RING=5, PACKET_VERSION=10, PACKET_TX_RING=13, PACKET_FANOUT=18),
    **_options("SOL_TCP", TCP_REPAIR=19, TCP_ULP=31),
    **_options("SOL_UDP", UDP_ENCAP=100),
    **_options("SOL_ALG", ALG_SET_KEY=1),
}
#: linux/in.h for AF_INET and AF_INET6, linux/netlink.h for AF_NETLINK
PROTOCOLS: Mapping[str, int] = {
    "IPPROTO_ICMP": 1,
    "IPPROTO_TCP": 6,
    "IPPROTO_UDP": 17,
    "IPPROTO_ICMPV6": 58,
    "IPPROTO_SCTP": 132,
    "IPPROTO_RAW": 255,
    "NETLINK_ROUTE": 0,
    "NETLINK_SOCK_DIAG": 4,
    "NETLINK_XFRM": 6,
    "NETLINK_AUDIT": 9,
    "NETLINK_NETFILTER": 12,
    "NETLINK_KOBJECT_UEVENT": 15,
    "NETLINK_GENERIC": 16,
    "NETLINK_CRYPTO": 21,
}
#: SYSLOG_ACTION_* of linux/syslog.h
SYSLOG_TYPES: Mapping[str, int] = _numbered(
    "SYSLOG_ACTION_CLOSE SYSLOG_ACTION_OPEN SYSLOG_ACTION_READ SYSLOG_ACTION_READ_ALL "
    "SYSLOG_ACTION_READ_CLEAR SYSLOG_ACTION_CLEAR SYSLOG_ACTION_CONSOLE_OFF SYSLOG_ACTION_CONSOLE_ON "
    "SYSLOG_ACTION_CONSOLE_LEVEL SYSLOG_ACTION_SIZE_UNREAD SYSLOG_ACTION_SIZE_BUFFER"
)
#: linux/reboot.h
REBOOT_COMMANDS: Mapping[str, int] = {
    "LINUX_REBOOT_CMD_RESTART": 0x01234567,
    "LINUX_REBOOT_CMD_HALT": 0xCDEF0123,
    "LINUX_REBOOT_CMD_CAD_ON": 0x89ABCDEF,
    "LINUX_REBOOT_CMD_CAD_OFF": 0,
    "LINUX_REBOOT_CMD_POWER_OFF": 0x4321FEDC,
    "LINUX_REBOOT_CMD_RESTART2": 0xA1B2C3D4,
    "LINUX_REBOOT_CMD_SW_SUSPEND": 0xD000FCE2,
    "LINUX_REBOOT_CMD_KEXEC": 0x45584543,
}


def _ioctl(group: int, number: int, size: int = 0, *, reads: bool = False, writes: bool = False) -> int:
    """Returns a request as asm-generic/ioctl.h composes it: _IO, _IOR, _IOW, _IOWR."""
    return reads << 31 | writes << 30 | size << 16 | group << 8 | number


_X, _BTRFS = ord("X"), 0x94
#: of terminals; of whole filesystems (linux/fs.h, linux/btrfs.h, fs/xfs/libxfs/xfs_fs.h, fs/ext4/ext4.h),
#: those with a pointer in their argument also as 32-bit programs number them
IOCTL_REQUESTS: Mapping[str, tuple[int, ...]] = {
    "TIOCSTI": (0x5412,),
    "TIOCLINUX": (0x541C,),
    "TIOCSETD": (0x5423,),
    "FIFREEZE": (_ioctl(_X, 119, 4, reads=True, writes=True),),
    "FITHAW": (_ioctl(_X, 120, 4, reads=True, writes=True),),
    "FITRIM": (_ioctl(_X, 121, 24, reads=True, writes=True),),
    # XFS_IOC_GOINGDOWN, EXT4_IOC_SHUTDOWN, F2FS_IOC_SHUTDOWN
    "FS_IOC_SHUTDOWN": (_ioctl(_X, 125, 4, reads=True),),
    "FS_IOC_SETFSLABEL": (_ioctl(_BTRFS, 50, 256, writes=True),),
    "EXT4_IOC_RESIZE_FS": (_ioctl(ord("f"), 16, 8, writes=True),),
    "EXT4_IOC_SWAP_BOOT": (_ioctl(ord("f"), 17),),
    "EXT4_IOC_SETFSUUID": (_ioctl(ord("f"), 44, 8, writes=True),),
    "XFS_IOC_ERROR_INJECTION": (_ioctl(_X, 116, 8, writes=True),),
    "XFS_IOC_FSGROWFSDATA": (_ioctl(_X, 110, 16, writes=True), _ioctl(_X, 110, 12, writes=True)),
    "XFS_IOC_OPEN_BY_HANDLE": tuple(_ioctl(_X, 107, n, reads=True, writes=True) for n in (56, 28)),
    "XFS_IOC_READLINK_BY_HANDLE": tuple(_ioctl(_X, 108, n, reads=True, writes=True) for n in (56, 28)),
    "XFS_IOC_ATTRLIST_BY_HANDLE": tuple(_ioctl(_X, 122, n, writes=True) for n in (88, 56)),
    "XFS_IOC_ATTRMULTI_BY_HANDLE": tuple(_ioctl(_X, 123, n, writes=True) for n in (72, 36)),
    "BTRFS_IOC_TREE_SEARCH": (_ioctl(_BTRFS, 17, 4096, reads=True, writes=True),),
    "BTRFS_IOC_TREE_SEARCH_V2": (_ioctl(_BTRFS, 17, 112, reads=True, writes=True),),
    "BTRFS_IOC_RESIZE": (_ioctl(_BTRFS, 3, 4096, writes=True),),
    "BTRFS_IOC_ADD_DEV": (_ioctl(_BTRFS, 10, 4096, writes=True),),
    "BTRFS_IOC_RM_DEV": tuple(_ioctl(_BTRFS, n, 4096, writes=True) for n in (11, 58)),
    "BTRFS_IOC_DEFAULT_SUBVOL": (_ioctl(_BTRFS, 19, 8, writes=True),),
    # 64-bit and 32-bit callers; the size is that of a long, the value an int
    "FS_IOC_SETFLAGS": tuple(_ioctl(ord("f"), 2, n, writes=True) for n in (8, 4)),
    "FS_IOC_SETVERSION": tuple(_ioctl(ord("v"), 2, n, writes=True) for n in (8, 4)),
    "FS_IOC_FSSETXATTR": (_ioctl(_X, 32, 28, writes=True),),
    "FS_IOC_SET_ENCRYPTION_POLICY": (_ioctl(ord("f"), 19, 12, reads=True),),
    "FS_IOC_ENABLE_VERITY": (_ioctl(ord("f"), 133, 128, writes=True),),
    "BTRFS_IOC_SNAP_CREATE": tuple(_ioctl(_BTRFS, n, 4096, writes=True) for n in (1, 23)),
    "BTRFS_IOC_SUBVOL_CREATE": tuple(_ioctl(_BTRFS, n, 4096, writes=True) for n in (14, 24)),
    "BTRFS_IOC_SNAP_DESTROY": (_ioctl(_BTRFS, 15, 4096, writes=True),),
    "BTRFS_IOC_SNAP_DESTROY_V2": (_ioctl(_BTRFS, 63, 4096, writes=True),),
    "BTRFS_IOC_SUBVOL_SETFLAGS": (_ioctl(_BTRFS, 26, 8, writes=True),),
    "BTRFS_IOC_SET_RECEIVED_SUBVOL": tuple(
        _ioctl(_BTRFS, 37, n, reads=True, writes=True) for n in (200, 192)
    ),
    "BTRFS_IOC_DEV_REPLACE": (_ioctl(_BTRFS, 53, 2600, reads=True, writes=True),),
}
#: asm/signal.h, the same on x86-64 and arm64
SIGNALS: Mapping[str, int] = {
    "none": 0,
    **_numbered(
        "SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE "
        "SIGALRM SIGTERM SIGSTKFLT SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU SIGXFSZ "
        "SIGVTALRM SIGPROF SIGWINCH SIGIO SIGPWR SIGSYS",
        1,
    ),
}
#: linux/fanotify.h; FAN_CLASS_NOTIF is 0
FANOTIFY_FLAGS: Mapping[str, int] = {
    "FAN_CLOEXEC": 1,
    "FAN_NONBLOCK": 2,
    "FAN_CLASS_CONTENT": 4,
    "FAN_CLASS_PRE_CONTENT": 8,
    "FAN_UNLIMITED_QUEUE": 0x10,
    "FAN_UNLIMITED_MARKS": 0x20,
    "FAN_ENABLE_AUDIT": 0x40,
    "FAN_REPORT_PIDFD": 0x80,
    "FAN_REPORT_TID": 0x100,
    "FAN_REPORT_FID": 0x200,
    "FAN_REPORT_DIR_FID": 0x400,
    "FAN_REPORT_NAME": 0x800,
    "FAN_REPORT_TARGET_FID": 0x1000,
}
#: linux/quota.h and linux/dqblk_xfs.h, in the place that they have in the call's argument (SUBCMDSHIFT)
QUOTA_COMMANDS: Mapping[str, int] = {
    name: number << 8
    for name, number in (
        *_numbered(
            "Q_SYNC Q_QUOTAON Q_QUOTAOFF Q_GETFMT Q_GETINFO Q_SETINFO Q_GETQUOTA Q_SETQUOTA Q_GETNEXTQUOTA",
            0x800001,
        ).items(),
        *_numbered(
            "Q_XQUOTAON Q_XQUOTAOFF Q_XGETQUOTA Q_XSETQLIM Q_XGETQSTAT Q_XQUOTARM Q_XQUOTASYNC Q_XGETQSTATV "
            "Q_XGETNEXTQUOTA",
            0x5801,
        ).items(),
    )
}
PERSONALITY_FLAGS: Mapping[str, int] = {
    "ADDR_NO_RANDOMIZE": 0x0040000,
    "MMAP_PAGE_ZERO": 0x0100000,
    "READ_IMPLIES_EXEC": 0x0400000,
}
SECCOMP_OPERATIONS: Mapping[str, int] = _numbered(
    "SECCOMP_SET_MODE_STRICT SECCOMP_SET_MODE_FILTER SECCOMP_GET_ACTION_AVAIL SECCOMP_GET_NOTIF_SIZES"
)

#: s_magic of a filesystem; linux/magic.h, else the filesystem's source.
#: A word may stand for several: `cgroup` is both versions, `disk` is any filesystem of node disks.
FILESYSTEMS: Mapping[str, tuple[int, ...]] = {
    "proc": (0x9FA0,),
    "sysfs": (0x62656572,),
    "cgroup": (0x27E0EB, 0x63677270),
    "cgroup1": (0x27E0EB,),
    "cgroup2": (0x63677270,),
    "tmpfs": (0x01021994,),  # also devtmpfs and memfd
    "ramfs": (0x858458F6,),
    "devpts": (0x1CD1,),
    "disk": (0xEF53, 0x58465342, 0x9123683E, 0xF2F52010),
    "ext4": (0xEF53,),
    "xfs": (0x58465342,),
    "btrfs": (0x9123683E,),
    "f2fs": (0xF2F52010,),
    "zfs": (0x2FC12FC1,),
    "overlay": (0x794C7630,),
    "squashfs": (0x73717368,),
    "vfat": (0x4D44,),
    "iso9660": (0x9660,),
    "debugfs": (0x64626720,),
    "tracefs": (0x74726163,),
    "securityfs": (0x73636673,),
    "aafs": (0x5A3C69F0,),  # AppArmor's policy: securityfs links to it
    "selinuxfs": (0xF97CFF8C,),
    "smackfs": (0x43415D53,),
    "resctrl": (0x7655821,),
    "bpf": (0xCAFE4A11,),
    "binfmt_misc": (0x42494E4D,),
    "configfs": (0x62656570,),
    "efivarfs": (0xDE5E81E4,),
    "pstore": (0x6165676C,),
    "fuse": (0x65735546,),
    "hugetlbfs": (0x958458F6,),
    "mqueue": (0x19800202,),
    "nsfs": (0x6E736673,),
    "pipefs": (0x50495045,),
    "sockfs": (0x534F434B,),
    "nfs": (0x6969,),
    "cifs": (0xFF534D42, 0xFE534D42),
    "ceph": (0x00C36400,),
    "9p": (0x01021997,),
    "rpc_pipefs": (0x67596969,),
}
