# SPDX-License-Identifier: Apache-2.0
"""One compiled BPF object, from its file to loaded programs and maps.

libbpf is needed for the load only: afterwards there are descriptors, and its memory is freed.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ringfence.bpf import _libbpf, _syscalls
from ringfence.bpf.maps import Map
from ringfence.errors import KernelError, NotPermittedError

__all__ = ["Loaded", "ObjectFile", "Program", "explain", "load_error", "return_free_memory"]

_TAIL = 6  # lines of a verifier log with the reason
_FAILED = re.compile(r"prog '([^']+)': (?:failed to (?:load|find|prepare|attach)|BPF program load failed)")


@dataclass(frozen=True, slots=True)
class Program:
    """A loaded program. `section` is its SEC() in the source; `attach_type` is enum bpf_attach_type.

    A program for many system calls has no call in its section: tracepoint/syscalls/sys_enter or .../sys_exit.
    """

    name: str
    section: str
    fd: int
    attach_type: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """Programs and maps by name. The owner closes every descriptor."""

    programs: dict[str, Program]
    maps: dict[str, Map]

    def close(self) -> None:
        for program in self.programs.values():
            os.close(program.fd)
        for found in self.maps.values():
            found.close()


class ObjectFile:
    """An opened object before the load; the load uses the settings made here.

    `explained`: keep libbpf's messages for `load_error`. This takes longer.
    """

    def __init__(self, path: Path, *, explained: bool = False) -> None:
        self._object = _opened(path, explained=explained)
        self.path = path
        self._programs = {_libbpf.program_name(p): p for p in _libbpf.programs(self._object)}
        self._maps = {_libbpf.map_name(m): m for m in _libbpf.maps(self._object)}

    def sections(self) -> dict[str, str]:
        """Program -> its SEC()."""
        return {name: _section(name, program) for name, program in self._programs.items()}

    def leave_out(self, program: str) -> None:
        """Excludes a program from the load."""
        _libbpf.program_set_autoload(self._programs[program], on=False)

    def set_type(self, program: str, type: int, attach_type: int) -> None:
        """Sets the type for a section that this libbpf does not know."""
        _libbpf.program_set_type(self._programs[program], type, attach_type)

    def retarget(self, program: str, attach_type: int, function: str) -> None:
        """Makes it a tracing program at a kernel function, whatever its section says."""
        self.set_type(program, _libbpf.TYPE_TRACING, attach_type)
        _libbpf.program_set_target(self._programs[program], function)

    def resize(self, name: str, entries: int) -> None:
        """Sets the number of entries of a map (of a ring: bytes)."""
        _libbpf.map_set_max_entries(self._maps[name], entries)

    def write_constant(self, name: str, data: bytes) -> None:
        """Sets a `const volatile` variable. KernelError if the object has none of that name and size."""
        offset, size = _libbpf.section_variables(self._object, ".rodata").get(name, (0, -1))
        if size != len(data):
            raise KernelError(
                f"{self.path.name} has no constant {name} of {len(data)} bytes",
                hint="agent and probes are from different builds: make build",
            )
        _libbpf.section_write(self._object, ".rodata", offset, data)

    def load(self) -> Loaded:
        """Loads everything into the kernel. OSError if it refuses: see `explain`."""
        _libbpf.object_load(self._object)
        programs = {}
        for name, pointer in self._programs.items():
            fd = _libbpf.program_fd(pointer)
            if fd >= 0:
                kind = _libbpf.program_attach_type(pointer)
                programs[name] = Program(name, _section(name, pointer), os.dup(fd), kind)
        maps = {}
        for name, found in self._maps.items():
            if not _libbpf.map_is_internal(found):
                fd, type, key, value, entries = _libbpf.map_shape(found)
                maps[name] = Map(os.dup(fd), key, value, entries, type, name)
        return Loaded(programs, maps)

    def close(self) -> None:
        """Frees libbpf's memory. Loaded programs and maps stay."""
        if self._object:
            _libbpf.object_close(self._object)
            self._object = _libbpf.ObjectPtr(0)
            _syscalls.return_free_memory()

    def __enter__(self) -> ObjectFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _opened(path: Path, *, explained: bool) -> _libbpf.ObjectPtr:
    _libbpf.LOG.clear()
    _libbpf.listen(on=explained)
    try:
        return _libbpf.object_open(str(path))
    except OSError as error:
        if not path.exists():
            hint = "install the package again; in a checkout: make build"
            raise KernelError(f"{path} is missing", hint=hint) from None
        if not explained:
            return _opened(path, explained=True)
        raise KernelError(f"{path} is not a BPF object: {error.strerror}", log=_log()) from None


def _section(name: str, pointer: _libbpf.ProgramPtr) -> str:
    section = _libbpf.program_section(pointer)
    if section != "tracepoint":
        return section
    return f"tracepoint/syscalls/sys_{'exit' if name.endswith('_exit') else 'enter'}"


def _log() -> str:
    return "\n".join(_libbpf.LOG)


def explain(log: str) -> tuple[list[str], list[str]]:
    """Returns the refused programs of a log, and the last lines before the verifier's statistics."""
    refused = list(dict.fromkeys(_FAILED.findall(log)))
    begin = log.find("-- BEGIN PROG LOAD LOG --")
    end = log.find("-- END PROG LOAD LOG --", begin)
    if begin < 0:
        return refused, [line.removeprefix("libbpf: ") for line in log.splitlines()[-_TAIL:]]
    lines = [line for line in log[begin:end].splitlines()[1:] if line and not _is_statistics(line)]
    return refused, lines[-_TAIL:]


def _is_statistics(line: str) -> bool:
    return line.startswith(("processed ", "verification time", "stack depth", "mark_precise"))


def load_error(error: OSError) -> KernelError:
    """Returns a user's error for a failed load, with libbpf's messages so far as the log."""
    log = _log()
    if error.errno in (errno.EPERM, errno.EACCES) and os.geteuid() != 0:
        return NotPermittedError(
            "loading BPF programs needs root, or CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_SYS_ADMIN",
            hint="run it as root",
            log=log,
        )
    refused, tail = explain(log)
    subject = f"the kernel refused program {refused[-1]}" if refused else "the kernel refused the programs"
    message = "\n  ".join([f"{subject}: {error.strerror}", *tail])
    return KernelError(message, hint="the full log is shown by --debug", log=log)


def return_free_memory() -> None:
    """After work that needed far more memory than stays in use."""
    _syscalls.return_free_memory()
