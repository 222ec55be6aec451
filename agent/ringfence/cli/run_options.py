# SPDX-License-Identifier: Apache-2.0
"""The options of `ringfence run`, named as in docker and podman, and the request built from them."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ringfence.cli.parser import Parser

__all__ = ["add_options", "add_roots", "request_of", "roots_of"]

PIDS = 2048
_Group = Any  # argparse's group; its type is private


def add_roots(parser: Parser) -> None:
    """Adds the options for directories; tests and second installations use other ones."""
    group = parser.add_argument_group("directories")
    group.add_argument(
        "--state-root", metavar="DIR", help="state of running sandboxes (default: /run/ringfence)"
    )
    group.add_argument("--image-root", metavar="DIR", help="image store (default: /var/lib/ringfence/images)")


def add_options(parser: Parser) -> None:
    """All options, in groups."""
    parser.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="IMAGE [COMMAND...]", help="with --rootfs: [COMMAND...]"
    )
    _sandbox(parser.add_argument_group("sandbox"))
    _program(parser.add_argument_group("program"))
    _files(parser.add_argument_group("files and devices"))
    _fences(parser.add_argument_group("fences"))
    _limits(parser.add_argument_group("limits"))
    _network(parser.add_argument_group("network"))
    _add_refused(parser)


def _list(group: _Group, *names: str, metavar: str, help: str) -> None:
    group.add_argument(*names, action="append", default=[], metavar=metavar, help=f"{help}; repeatable")


def _sandbox(group: _Group) -> None:
    group.add_argument(
        "--rootfs",
        metavar="host|DIR",
        help="use the host's root read-only, or a directory, as root filesystem",
    )
    group.add_argument("--name", default="", help="sandbox name (default: the image's name and six digits)")
    group.add_argument("-d", "--detach", action="store_true", help="run in the background and print the name")
    group.add_argument("-q", "--quiet", action="store_true", help="print no warnings")
    group.add_argument("--rm", action="store_true", help="remove a detached sandbox when it exits")
    group.add_argument(
        "--keep", action="store_true", help="keep the sandbox after it exits, until `ringfence rm`"
    )
    group.add_argument(
        "--hostname", default="", metavar="NAME", help="host name (default: the sandbox's name)"
    )
    _list(
        group,
        "-l",
        "--label",
        metavar="KEY=VALUE",
        help="label; shown in alerts and `ps`, and usable in policy selectors",
    )
    group.add_argument(
        "--cgroup-parent",
        default="",
        metavar="PATH",
        help="parent cgroup (default: none; the cgroup is /ringfence-NAME)",
    )


def _program(group: _Group) -> None:
    group.add_argument("-i", "--interactive", action="store_true", help="keep standard input open")
    group.add_argument("-t", "--tty", action="store_true", help="allocate a terminal")
    _list(
        group,
        "-e",
        "--env",
        metavar="NAME[=VALUE]",
        help="environment variable; without a value, that of the caller",
    )
    _list(group, "--env-file", metavar="FILE", help="file of environment variables, one per line")
    group.add_argument("-w", "--workdir", default="", metavar="PATH", help="working directory")
    group.add_argument(
        "-u", "--user", default="", metavar="USER[:GROUP]", help="user, by name (from the image) or number"
    )
    _list(group, "--group-add", metavar="GID", help="additional group")
    group.add_argument("--entrypoint", metavar="PROGRAM", help="override the image's entrypoint")
    group.add_argument(
        "--stop-signal",
        default="",
        metavar="SIGNAL",
        help="signal for `ringfence stop` (default: the image's)",
    )
    group.add_argument(
        "--stop-timeout",
        type=int,
        default=10,
        metavar="SECONDS",
        help="grace period before SIGKILL (default: 10)",
    )


def _files(group: _Group) -> None:
    _list(group, "-v", "--volume", metavar="PATH:PATH[:ro]", help="bind-mount a host path")
    _list(group, "--mount", metavar="KEY=VALUE,...", help="mount: type=bind|tmpfs,source=,target=,readonly")
    _list(group, "--tmpfs", metavar="PATH[:OPTIONS]", help="mount a tmpfs")
    group.add_argument("--read-only", action="store_true", help="mount the root filesystem read-only")
    group.add_argument("--shm-size", default="64m", metavar="SIZE", help="size of /dev/shm (default: 64m)")
    _list(group, "--device", metavar="PATH[:PATH[:rwm]]", help="make a host device available")


def _fences(group: _Group) -> None:
    _list(group, "--cap-add", metavar="CAPABILITY", help="grant a capability, or ALL")
    _list(group, "--cap-drop", metavar="CAPABILITY", help="drop a capability, or ALL")
    _list(
        group,
        "--security-opt",
        metavar="OPTION",
        help="change a fence: seccomp=FILE|unconfined, landlock=off, no-new-privileges=false,"
        " systempaths=unconfined, apparmor=PROFILE, label=LABEL",
    )
    group.add_argument(
        "--policy", default="", metavar="FILE|NAME",
        help="policy for this sandbox: a file, or the name of a loaded policy",
    )  # fmt: skip
    group.add_argument(
        "--learn",
        default="",
        metavar="DIR",
        help="record this run and write a policy and profiles that allow what it did",
    )
    group.add_argument(
        "--verify",
        default="",
        metavar="DIR",
        help="repeat a learned run under its fences and report what they deny",
    )
    group.add_argument("--fences", default="", metavar="DIR", help="run under the fences learned in DIR")
    group.add_argument(
        "--userns",
        default="",
        choices=("auto", "host"),
        help="user namespace; auto: 65536 ids that no other sandbox uses (the default with --rootfs host);"
        " host: none",
    )
    group.add_argument(
        "--require-agent",
        action="store_true",
        help="refuse to start unless a running agent enrols the sandbox",
    )
    _list(group, "--sysctl", metavar="NAME=VALUE", help="set a namespaced sysctl")


def _limits(group: _Group) -> None:
    group.add_argument("-m", "--memory", default="", metavar="SIZE", help="memory limit")
    group.add_argument(
        "--memory-swap", default="", metavar="SIZE", help="memory plus swap limit; -1: unlimited"
    )
    group.add_argument("--memory-reservation", default="", metavar="SIZE", help="soft memory limit")
    group.add_argument("--cpus", type=float, default=0.0, metavar="N", help="CPU limit, such as 1.5")
    group.add_argument(
        "--cpu-shares", type=int, default=0, metavar="N", help="relative CPU weight (default: 1024)"
    )
    group.add_argument("--cpuset-cpus", default="", metavar="LIST", help="CPUs to run on, such as 0-3,6")
    group.add_argument(
        "--pids-limit",
        type=int,
        default=PIDS,
        metavar="N",
        help=f"maximum number of tasks; -1: unlimited (default: {PIDS})",
    )
    _list(group, "--ulimit", metavar="NAME=SOFT[:HARD]", help="resource limit, such as nofile=1024:4096")
    group.add_argument("--oom-score-adj", type=int, metavar="N", help="OOM score adjustment, -1000 to 1000")


def _network(group: _Group) -> None:
    group.add_argument(
        "--network",
        default="",
        metavar="MODE",
        help="none, host, bridge[:NAME], macvlan:PARENT, ipvlan:PARENT[:l2|l3] or container:NAME (default:"
        " none, with --publish bridge); bridge, macvlan and ipvlan take the options"
        " ,subnet=CIDR,ip=IP,gateway=IP,mtu=N,internal",
    )
    _list(group, "-p", "--publish", metavar="[IP:][HOST:]PORT[/udp]", help="publish a port on the host")
    group.add_argument(
        "-P", "--publish-all", action="store_true", help="publish every port that the image declares"
    )
    _list(group, "--dns", metavar="IP", help="DNS server (default: the host's)")
    _list(group, "--dns-search", metavar="DOMAIN", help="DNS search domain")
    _list(group, "--dns-option", metavar="OPTION", help="resolv.conf option")
    _list(group, "--add-host", metavar="NAME:IP", help="add an /etc/hosts entry; IP host-gateway: this host")
    group.add_argument(
        "--ip-forward", action="store_true", help="enable IP forwarding on this host if it is off"
    )


# Options of docker that do not exist here, and what to do instead.
_ALTERNATIVES = {
    "--privileged": "grant what is needed: --cap-add, --device, --security-opt",
    "--init": "the program is process 1 of the sandbox and must reap its children",
    "--restart": "run it in the foreground under systemd or another supervisor",
    "--pull": "images come from files: skopeo copy docker://IMAGE oci:PATH, then ringfence image import PATH",
}


def _add_refused(parser: Parser) -> None:
    for name in _ALTERNATIVES:
        parser.add_argument(name, nargs="?", const=name, dest=f"refused_{name[2:]}", help=argparse.SUPPRESS)


def _refuse(options: Any) -> None:
    from ringfence.sandbox.errors import UsageError

    for name, hint in _ALTERNATIVES.items():
        if getattr(options, f"refused_{name[2:]}") is not None:
            raise UsageError(f"{name} is not supported", hint=hint)


def roots_of(options: Any) -> Any:
    """Returns the directories of sandbox state and images."""
    from ringfence.sandbox.request import Roots

    usual = Roots()
    return Roots(
        os.path.abspath(options.state_root or usual.state),
        os.path.abspath(options.image_root or usual.images),
    )


def request_of(options: Any) -> Any:
    """Returns the request that the options describe. Raises UsageError with the option's name."""
    from ringfence.sandbox import values
    from ringfence.sandbox.errors import UsageError
    from ringfence.sandbox.request import Request

    _refuse(options)
    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    if options.rootfs is None and not words:
        raise UsageError("no image given", hint="ringfence run [options] IMAGE [COMMAND...]")
    source, command = (words[0], words[1:]) if options.rootfs is None else (options.rootfs, words)
    return Request(
        source=source,
        is_rootfs=options.rootfs is not None,
        command=tuple(command),
        roots=roots_of(options),
        name=options.name,
        detach=options.detach,
        keep=options.keep or (options.detach and not options.rm),
        tty=options.tty,
        interactive=options.interactive,
        environment=values.variables(options.env, options.env_file),
        entrypoint=options.entrypoint,
        workdir=options.workdir,
        user=options.user,
        groups=tuple(values.group(text) for text in options.group_add),
        hostname=values.hostname(options.hostname),
        labels=tuple(values.key_value("--label", text) for text in options.label),
        stop_signal=options.stop_signal,
        stop_timeout=options.stop_timeout,
        cgroup_parent=options.cgroup_parent,
        oom_score=options.oom_score_adj,
        resources=_resources(options),
        fences=_chosen_fences(options),
        **_files_of(options),
        **_network_of(options),
    )


def _files_of(options: Any) -> dict[str, Any]:
    from ringfence.sandbox import values

    return {
        "volumes": (
            *map(values.volume, options.volume),
            *map(values.mount, options.mount),
            *map(values.tmpfs, options.tmpfs),
        ),
        "devices": tuple(map(values.device, options.device)),
        "read_only": options.read_only,
        "shm_size": values.bytes_of("--shm-size", options.shm_size),
        "sysctls": tuple(values.key_value("--sysctl", text) for text in options.sysctl),
        "limits": tuple(map(values.limit, options.ulimit)),
    }  # fmt: skip


def _network_of(options: Any) -> dict[str, Any]:
    from ringfence.sandbox import files, values

    return {
        "network": options.network,
        "publish": tuple(options.publish),
        "publish_all": options.publish_all,
        "dns": tuple(map(files.server, options.dns)),
        "dns_search": tuple(map(files.search_domain, options.dns_search)),
        "dns_options": tuple(map(files.search_domain, options.dns_option)),
        "hosts": tuple(map(values.extra_host, options.add_host)),
        "forwarding": options.ip_forward,
    }


def _resources(options: Any) -> Any:
    from ringfence.sandbox.errors import UsageError
    from ringfence.sandbox.request import Resources
    from ringfence.sandbox.values import bytes_of

    def size(option: str, text: str) -> int:
        count = bytes_of(option, text) if text else 0
        if 0 < count < 1 << 20:
            hint = "a number without a unit is in bytes: write 512m"
            raise UsageError(f"{option}: {count} bytes are too few to start a program", hint=hint)
        return count

    swap = -1 if options.memory_swap == "-1" else size("--memory-swap", options.memory_swap)
    return Resources(
        memory=size("--memory", options.memory),
        memory_swap=swap,
        memory_reservation=size("--memory-reservation", options.memory_reservation),
        cpus=options.cpus,
        cpu_shares=options.cpu_shares,
        cpuset=options.cpuset_cpus,
        pids=max(options.pids_limit, 0),
    )


def _chosen_fences(options: Any) -> Any:
    from ringfence.sandbox.request import Fences
    from ringfence.sandbox.values import security

    return Fences(
        cap_add=tuple(options.cap_add),
        cap_drop=tuple(options.cap_drop),
        policy=options.policy,
        userns=options.userns,
        learned=os.path.abspath(options.fences) if options.fences else "",
        require_agent=options.require_agent,
        **security(options.security_opt),
    )
