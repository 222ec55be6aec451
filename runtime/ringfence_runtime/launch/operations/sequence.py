# SPDX-License-Identifier: Apache-2.0
"""The order of a launch: every operation of a container's init, from the configuration and the options.

The order is part of the defence (docs/reference/runtime.md). What needs privileges comes before they are
given up, and seccomp is last.
"""

from __future__ import annotations

from ringfence_linux import syscalls
from ringfence_runtime.errors import Error
from ringfence_runtime.launch.devices import default_devices
from ringfence_runtime.launch.operations import (
    devices,
    identity,
    isolation,
    mounts,
    protection,
    root,
    settings,
    start,
)
from ringfence_runtime.security import caps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ringfence_runtime.cgroup.group import Cgroup
    from ringfence_runtime.launch.operations.base import Operation
    from ringfence_runtime.launch.plan import Options, Plan
    from ringfence_runtime.security.seccomp import Filter
    from ringfence_runtime.spec.config import Config
    from ringfence_runtime.spec.linux import Landlock
    from ringfence_runtime.spec.mounts import Mount
    from ringfence_runtime.spec.process import Process
    from ringfence_runtime.state import Container

__all__ = ["become_workload", "launch_operations"]

# The kernel's own filesystems, in which nothing can be created.
_FIXED = frozenset(("proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue"))


def launch_operations(plan: Plan, container: Container, seccomp: Filter | None) -> Iterator[Operation]:
    """All operations of a launch, in order."""
    config, options = plan.config, plan.options
    if config.process is None:
        raise Error("config: process: is required")  # parent.py refuses it earlier
    yield from _isolate(plan, container)
    yield settings.SetUmask(0)
    yield from _enter_root(plan)
    yield from _mount_all(plan, container.cgroup)
    yield from _make_devices(config)
    yield from _set_up(config, config.process, options)
    yield from _run_hooks(plan)
    yield root.MakeDirectory(config.process.cwd)
    yield from _make_readonly(config)
    yield from _leave_host(plan)
    if options.output:
        from ringfence_runtime.launch.operations.python_only import RedirectOutput

        yield RedirectOutput(options.output)
    yield from become_workload(config, config.process, options, seccomp, joins=False)
    yield start.AwaitStart()
    if config.hooks["startContainer"]:
        from ringfence_runtime.launch.operations.python_only import RunStartHooks

        yield RunStartHooks(tuple(config.hooks["startContainer"]), seccomp)
    yield start.Execute("".join(config.process.args[:1]), seccomp, tuple(options.handed))


def _isolate(plan: Plan, container: Container) -> Iterator[Operation]:
    linux, options = plan.config.linux, plan.options
    if options.streams is not None or options.foreign:
        yield isolation.TakeStreams(tuple(options.streams or ()), tuple(options.foreign))
    if not plan.staged and any(container.cgroup.dirs):
        yield isolation.EnterCgroups(tuple(container.cgroup.dirs))
    yield isolation.AwaitRuntime(_awaited(plan))
    if "user" in linux.namespaces:
        yield isolation.BecomeNamespaceRoot()
    if not plan.staged:
        for name in plan.namespaces:
            yield isolation.JoinNamespace(name)
    if linux.new("cgroup"):
        yield isolation.NewCgroupNamespace()
    if linux.new("network"):
        yield isolation.LoopbackUp()
    if not options.keep_keyring:
        yield isolation.JoinKeyring(container.id)


def _awaited(plan: Plan) -> str:
    """What the runtime must do from outside before the init may go on."""
    linux = plan.config.linux
    acts = ["maps the ids of the user namespace"] if "user" in linux.namespaces else []
    acts += ["moves the init into its cgroups"] if plan.staged else []
    acts += ["moves the network interfaces"] if linux.net_devices else []
    return " and ".join(acts)


def _enter_root(plan: Plan) -> Iterator[Operation]:
    # An init that opens the sources itself must still receive mounts from the host.
    cut = syscalls.MS_SLAVE if plan.deferred else syscalls.MS_PRIVATE
    yield root.CutPropagation("mount" in plan.joins, cut)
    given = plan.options.rootfs_fd >= 0
    yield root.AttachRoot(plan.rootfs, plan.deferred, given, _early_propagation(plan.config))
    yield root.OpenProcfs()


def _mount_all(plan: Plan, group: Cgroup) -> Iterator[Operation]:
    config = plan.config
    early, late = _early_propagation(config), _late_propagation(config)
    foreign_network = "user" in config.linux.namespaces and not config.linux.new("network")
    for index, mount in enumerate(config.mounts):
        apart = bool(mount.own_propagation and late)
        if mount.type == "cgroup" or (mount.type == "cgroup2" and not mount.bind):
            yield _cgroup_mount(mount, group, own="cgroup" in config.linux.namespaces)
        elif mount.bind:
            yield mounts.Bind(mount, apart, index, plan.bundle, early, plan.inner.get(index, ""))
        else:
            sealed = _sealed_later(config, mount)
            yield mounts.NewFilesystem(mount, apart, config.linux.mount_label, foreign_network, sealed)


def _sealed_later(config: Config, mount: Mount) -> bool:
    """Returns True for a read-only filesystem in which the launch creates something after it is attached.

    A bind mount is not one: the files of the host stay as they are.
    """
    read_only = (mount.attr_set | mount.rattr_set) & syscalls.MOUNT_ATTR_RDONLY
    if not read_only or mount.type in _FIXED or mounts.is_read_only_device(mount):
        return False
    directory = _plain(mount.destination)
    made = [other.destination for other in config.mounts if other is not mount]
    made += [device.path for device in config.linux.devices]
    if config.process is not None:
        made.append(config.process.cwd)
    return mount.copy_up or directory == "/dev/" or any(_plain(path).startswith(directory) for path in made)


def _plain(path: str) -> str:
    """The path in its shortest form, with a slash at its end."""
    return "/".join(["", *(part for part in path.split("/") if part not in ("", ".")), ""])


def _cgroup_mount(mount: Mount, group: Cgroup, *, own: bool) -> Operation:
    from ringfence_runtime.cgroup.hierarchy import detect
    from ringfence_runtime.launch.operations.cgroups import MountLegacyCgroups, MountUnifiedCgroup

    unified = group.is_v2 or mount.type == "cgroup2" or (not group.dirs and not detect().v1)
    return (MountUnifiedCgroup if unified else MountLegacyCgroups)(mount, False, group, own)


def _make_devices(config: Config) -> Iterator[Operation]:
    """The default devices and those of the configuration. In a /dev that is bound from the host nothing is
    created: the devices must exist.
    """
    bound = any(mount.bind and mount.destination.rstrip("/") == "/dev" for mount in config.mounts)
    wanted = {} if bound else {device.path: device for device in default_devices()}
    wanted.update({device.path: device for device in config.linux.devices})
    for device in wanted.values():
        if bound and device.path.startswith("/dev/"):
            yield devices.FindDevice(device)
        else:
            yield devices.MakeDevice(device, "user" in config.linux.namespaces)
    if not bound:
        yield devices.LinkDevices()


def _set_up(config: Config, process: Process, options: Options) -> Iterator[Operation]:
    if config.hostname:
        yield settings.SetHostname(config.hostname)
    if config.domainname:
        yield settings.SetDomainName(config.domainname)
    for name, value in config.linux.sysctls.items():
        yield settings.Sysctl(name, value)
    if process.terminal:
        from ringfence_runtime.launch.operations.python_only import OpenTerminal

        size, uid = process.console_size, process.user.uid
        yield OpenTerminal(size, uid, options.plain_terminal, True)


def _run_hooks(plan: Plan) -> Iterator[Operation]:
    """The hooks that run before the root is changed."""
    hooks = plan.config.hooks
    if not any(hooks[kind] for kind in ("prestart", "createRuntime", "createContainer")):
        return
    from ringfence_runtime.launch.operations import python_only

    if hooks["prestart"] or hooks["createRuntime"]:
        yield python_only.AwaitRuntimeHooks()
    if hooks["createContainer"]:
        yield settings.SetUmask(0o022)
        yield python_only.RunHooks(
            "createContainer", tuple(hooks["createContainer"]), "creating", plan.bundle
        )


def _make_readonly(config: Config) -> Iterator[Operation]:
    yield mounts.SealMounts()
    for path in config.linux.readonly:
        yield protection.ReadOnly(path)
    for path in config.linux.masked:
        yield protection.Mask(path, config.linux.mount_label)
    if config.root_readonly:
        yield protection.ReadOnlyRoot()


def _leave_host(plan: Plan) -> Iterator[Operation]:
    late = _late_propagation(plan.config)
    if plan.options.no_pivot:
        from ringfence_runtime.launch.operations.python_only import MoveRoot

        yield MoveRoot()
    else:
        yield root.PivotRoot()
    if late:
        yield root.SetRootPropagation(late)
    if late and any(mount.own_propagation for mount in plan.config.mounts):
        from ringfence_runtime.launch.operations.python_only import SetPropagationAgain

        yield SetPropagationAgain()


def become_workload(
    config: Config, process: Process, options: Options, seccomp: Filter | None, *, joins: bool
) -> Iterator[Operation]:
    """From the environment to the last step before the wait for the start.

    `joins`: for a process that `exec` adds to a running container.
    """
    landlock = _landlock_rules(config)
    yield identity.ReadEnvironment(process, options.listen_fds)
    yield settings.SetUmask(0o022 if process.user.umask is None else process.user.umask)
    yield from _schedule(config, process, joins=joins)
    if not joins:
        yield root.CloseHandles()
    if landlock is not None:
        from ringfence_runtime.launch.operations.python_only import BuildLandlock

        yield BuildLandlock(landlock, config, not joins)
    # Some directories only the user of the workload may enter, others only the runtime.
    yield identity.EnterDirectory(process.cwd)
    if landlock is not None:
        from ringfence_runtime.launch.operations.python_only import RestrictByLandlock

        yield RestrictByLandlock(process.no_new_privs)
    yield identity.OwnStreams(process.user.uid, process.user.gid)
    sets = caps.default_sets(process.user.uid) if process.capabilities is None else process.capabilities
    keeps_admin = seccomp is not None and not process.no_new_privs
    yield identity.SetIdentity(process.user, sets, keeps_admin, "user" in config.linux.namespaces)
    yield identity.EnterDirectoryAsUser(process.cwd)
    if process.no_new_privs:
        yield identity.SetNoNewPrivileges()
    yield identity.ForbidDump()
    yield start.FindProgram(process)
    yield start.CloseDescriptors()


def _schedule(config: Config, process: Process, *, joins: bool) -> Iterator[Operation]:
    """CPUs, execution domain, memory policy, scheduler, labels."""
    if joins and process.affinity_final:
        from ringfence_runtime.launch.operations.python_only import SetAffinity

        yield SetAffinity(process.affinity_final)
    if config.linux.personality is not None:
        yield settings.SetPersonality(config.linux.personality)
    if config.linux.memory_policy is not None:
        from ringfence_runtime.launch.mempolicy import parse_policy
        from ringfence_runtime.launch.operations.python_only import SetMemoryPolicy

        yield SetMemoryPolicy(*parse_policy(config.linux.memory_policy))
    if process.scheduler is not None or process.io_priority is not None:
        from ringfence_runtime.launch.operations.python_only import Schedule

        yield Schedule(process)
    if process.apparmor or process.selinux:
        from ringfence_runtime.launch.operations.python_only import ApplyLabels
        from ringfence_runtime.security.labels import apparmor_enabled, selinux_enabled

        hosts = (apparmor_enabled(), selinux_enabled())
        yield ApplyLabels(process.apparmor, process.selinux, hosts, joins)


def _landlock_rules(config: Config) -> Landlock | None:
    if config.linux.landlock is None and not config.annotations:
        return None
    from ringfence_runtime.security.landlock import wanted

    return wanted(config)


def _early_propagation(config: Config) -> int:
    """`rootfsPropagation` if each tree gets it before it is attached: setting it afterwards on the whole tree
    would undo the propagation that a mount asks for.
    """
    kind, recursive = config.linux.propagation
    return kind if recursive and kind in (syscalls.MS_PRIVATE, syscalls.MS_SLAVE) else 0


def _late_propagation(config: Config) -> int:
    """`rootfsPropagation` if / gets it after all mounts: before, they would reach a peer of a shared root."""
    kind, recursive = config.linux.propagation
    if not kind or _early_propagation(config):
        return 0
    return kind | (syscalls.MS_REC if recursive else 0)
