# SPDX-License-Identifier: Apache-2.0
"""The child process for bcc: compiles, verifies and attaches one probe, passes its descriptors, ends.

It is run by the Python that has bcc (the system's), which may lack every package of the agent: so this
file imports the standard library and bcc only. It always ends; LLVM and its memory end with it, while
the descriptors keep the programs attached. Output of clang and the verifier goes to standard error, a
file of the agent.

    python3 -I _bcc_child.py FD     a unix socket (SOCK_SEQPACKET): one request, one answer
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import resource
import signal
import socket
import sys
from typing import Any

_CLONE_NEWNS = 0x20000
_MS_REC_PRIVATE = 0x4000 | 0x40000
_PR_SET_PDEATHSIG = 1
_BPF_OBJ_PIN = 6
_TRACEFS = "/sys/kernel/tracing"
_MAX_MESSAGE = 1 << 17
_MISSING = re.compile(rb"fatal error: '([A-Za-z0-9_./-]+\.h)' file not found")
# bcc's own headers use helpers that are newer than the kernel: they get an unused number.
_UNKNOWN = re.compile(rb"^/virtual/\S+ error: use of undeclared identifier '(BPF_\w+)'", re.M)
_NO_SUCH = b"#define %s 0x7fffff00\n"
_MAX_TRIES = 64  # attempts to complete the header tree for one probe

_libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """The error for the agent: stage, function or hook, message."""

    def __init__(self, stage: str, subject: str, message: str) -> None:
        super().__init__(message)
        self.answer = {"stage": stage, "subject": subject, "message": message}


def _checked(result: int, call: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")
    return result


def _bound_by(limits: dict[str, int]) -> None:
    """Limits memory and CPU time; the process ends with the agent and is the OOM killer's first choice."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")
    for kind, amount in (
        (resource.RLIMIT_AS, limits["memory"]),
        (resource.RLIMIT_CPU, limits["seconds"]),
        (resource.RLIMIT_FSIZE, limits["output"]),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (amount, amount))


def _own_mounts() -> None:
    """Mounts tracefs where bcc expects it, in a private mount namespace."""
    if _libc.unshare(_CLONE_NEWNS) < 0 and ctypes.get_errno() == errno.EPERM:
        raise Refused(
            "child", "", "it needs CAP_SYS_ADMIN to mount tracefs and a bpffs in a private mount namespace"
        )
    _checked(_libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC_PRIVATE), None), "mount")
    if not os.path.isdir(f"{_TRACEFS}/events"):
        result = _libc.mount(b"tracefs", _TRACEFS.encode(), b"tracefs", ctypes.c_ulong(0), None)
        _checked(result, "mount tracefs")


def _pin(maps: dict[str, int], directory: str, nr_bpf: int) -> None:
    """Pins the agent's maps under names that bcc can open, in a private bpffs."""
    result = _libc.mount(b"bpf", os.fsencode(directory), b"bpf", ctypes.c_ulong(0), None)
    _checked(result, "mount bpf")
    for name, fd in maps.items():
        path = ctypes.create_string_buffer(os.fsencode(f"{directory}/{name}"))
        attr = (ctypes.c_uint64 * 2)(ctypes.addressof(path), fd)
        _checked(
            _libc.syscall(ctypes.c_long(nr_bpf), ctypes.c_long(_BPF_OBJ_PIN), attr, ctypes.c_long(16)),
            "bpf pin",
        )


def _load_bcc() -> Any:
    try:
        import bcc
    except ModuleNotFoundError as error:
        raise Refused("bcc", "", str(error)) from None
    if not hasattr(bcc, "BPF"):
        raise Refused("bcc", "", f"{bcc.__file__} is a different package with that name")

    class Module(bcc.BPF):  # type: ignore[misc]
        """Compiles only: bcc would also load and attach."""

        def _trace_autoload(self) -> None:
            pass

    return Module


def _compile(module: Any, request: dict[str, Any]) -> Any:
    """Compiles; adds headers that the tree lacks (see `_mended`) and tries again."""
    with open(request["text"], "rb") as file:
        text = file.read()
    for _ in range(_MAX_TRIES):
        begin = os.fstat(2).st_size
        try:
            return module(text=text, cflags=request["flags"], debug=0)
        except Exception as error:
            if not request["headers"] or not _mended(request["headers"], os.pread(2, 1 << 16, begin)):
                raise Refused("compile", "", str(error)) from None
            os.ftruncate(2, begin)
    raise Refused("compile", "", "includes too many headers")


def _mended(include: str, said: bytes) -> bool:
    """Creates a missing header as an empty file: its types are in the BTF dump. Defines unknown helpers."""
    if missing := _MISSING.search(said):
        path = os.path.normpath(os.path.join(include, missing[1].decode()))
        if not path.startswith(f"{os.path.normpath(include)}/"):
            return False  # not a kernel header: report the mistake
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "ab"):
            return True
    unknown = sorted(set(_UNKNOWN.findall(said)))
    with open(os.path.join(include, "linux/ringfence_unknown.h"), "ab") as file:
        file.write(b"".join(_NO_SUCH % name for name in unknown))
    return bool(unknown)


def _shape(module: Any, bpf: Any, lib: Any) -> tuple[int, list[list[Any]]]:
    """Returns the size of the event's struct, and [name, type, offset, size, elements or 0] by member."""
    described = json.loads(lib.bpf_table_leaf_desc(bpf.module, b"rf_shape").decode())
    kind = module._decode_table_type(described)
    fields = []
    for entry in described[1]:
        member = getattr(kind, entry[0], None)
        if member is None or entry[0].startswith("__pad"):
            continue
        nested = not isinstance(entry[1], str)
        elements = entry[2][0] if len(entry) > 2 and isinstance(entry[2], list) else 0
        bits = len(entry) > 2 and isinstance(entry[2], int)
        name = f"struct {entry[1][0]}" if nested else "bits" if bits else entry[1]
        fields.append([entry[0], name, member.offset, 0 if bits else member.size, elements])
    return ctypes.sizeof(kind), fields


#: prefix of a function's name -> (type of program, bcc's name for the hook)
_HOOKS = {
    "tracepoint__": ("TRACEPOINT", "tracepoint_fds"),
    "raw_tracepoint__": ("RAW_TRACEPOINT", "raw_tracepoint_fds"),
    "kprobe__": ("KPROBE", "kprobe_fds"),
    "kretprobe__": ("KPROBE", "kprobe_fds"),
    "kfunc__": ("TRACING", "kfunc_entry_fds"),
    "kretfunc__": ("TRACING", "kfunc_exit_fds"),
}


def _programs(bpf: Any, lib: Any) -> list[tuple[str, str, str]]:
    """Returns (function, prefix of its name, hook) of each program."""
    found = []
    for index in range(lib.bpf_num_functions(bpf.module)):
        name = lib.bpf_function_name(bpf.module, index).decode()
        begin = next((begin for begin in _HOOKS if name.startswith(begin)), "")
        if not begin:
            raise Refused("function", name, "has no hook in its name: see docs/reference/custom-probes.md")
        found.append((name, begin, name[len(begin) :]))
    if not found:
        raise Refused("function", "", "has no program: TRACEPOINT_PROBE, RAW_TRACEPOINT_PROBE or another")
    return found


def _check_hook(bpf: Any, name: str, begin: str, hook: str) -> None:
    """Checks that the hook exists. Called before attaching, and if the probe is only verified."""
    missing = ""
    if begin == "tracepoint__":
        place = hook.replace("__", "/", 1)
        missing = (
            "" if os.path.isdir(f"{_TRACEFS}/events/{place}") else f"tracepoint {place.replace('/', ':')}"
        )
    elif begin in ("kprobe__", "kretprobe__"):
        function = bpf.fix_syscall_fnname(hook.encode()).decode()
        if not os.path.isdir("/sys/bus/event_source/devices/kprobe"):
            missing = "kprobes (CONFIG_KPROBES)"
        elif bpf.ksymname(function.encode()) == -1:
            missing = f"function {function}"
    if missing:
        raise Refused("hook", name, f"this kernel has no {missing}")


def _load(bpf: Any, name: str, begin: str) -> None:
    try:
        bpf.load_func(name.encode(), getattr(bpf, _HOOKS[begin][0]))
    except Exception as error:
        raise Refused("verify", name, str(error)) from None


def _attach(bpf: Any, name: str, begin: str, hook: str) -> list[int]:
    """Attaches the program and returns the descriptors that keep it attached."""
    kept = getattr(bpf, _HOOKS[begin][1])
    before = set(_numbers(kept))
    try:
        if begin == "tracepoint__":
            bpf.attach_tracepoint(tp=hook.replace("__", ":", 1).encode(), fn_name=name.encode())
        elif begin == "raw_tracepoint__":
            bpf.attach_raw_tracepoint(tp=hook.encode(), fn_name=name.encode())
        elif begin in ("kprobe__", "kretprobe__"):
            attach = bpf.attach_kprobe if begin == "kprobe__" else bpf.attach_kretprobe
            attach(event=bpf.fix_syscall_fnname(hook.encode()), fn_name=name.encode())
        else:
            attach = bpf.attach_kfunc if begin == "kfunc__" else bpf.attach_kretfunc
            attach(fn_name=name.encode())
    except Exception as error:
        code = ctypes.get_errno()
        reason = f" ({errno.errorcode[code]})" if code in errno.errorcode else ""
        raise Refused("attach", name, f"{error}{reason}") from None
    return [fd for fd in _numbers(kept) if fd not in before]


def _numbers(kept: dict[Any, Any]) -> list[int]:
    found: list[int] = []
    for value in kept.values():
        found += value.values() if isinstance(value, dict) else [value]
    return found


def _serve(connection: socket.socket) -> None:
    message, fds, _, _ = socket.recv_fds(connection, _MAX_MESSAGE, 16)
    request = json.loads(message)
    _bound_by(request["limits"])
    _own_mounts()
    if fds:
        _pin(dict(zip(request["maps"], fds, strict=True)), request["pins"], request["nr_bpf"])
    module = _load_bcc()
    from bcc import libbcc

    bpf = _compile(module, request)
    programs = _programs(bpf, libbcc.lib)
    size, shape = _shape(module, bpf, libbcc.lib)
    for name, begin, hook in programs:
        _check_hook(bpf, name, begin, hook)
        _load(bpf, name, begin)
    links: list[int] = []
    if request["attach"]:
        for name, begin, hook in programs:
            links += _attach(bpf, name, begin, hook)
    names = (b"rf_ring", b"rf_counts", b"rf_terms")
    tables = [libbcc.lib.bpf_table_fd(bpf.module, name) for name in names]
    hooks = [f"{begin[:-2]}:{hook.replace('__', ':', 1)}" for _, begin, hook in programs]
    answer = {"size": size, "shape": shape, "hooks": hooks}
    socket.send_fds(connection, [json.dumps(answer).encode()], tables + links)


def main() -> None:
    """Serves one request and exits without bcc's clean-up, which would detach everything."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    if os.getpriority(os.PRIO_PROCESS, 0) < 0:
        os.setpriority(
            os.PRIO_PROCESS, 0, 0
        )  # the agent's priority is for reporting alerts, not for compilers
    try:
        _serve(connection)
    except Refused as refused:
        connection.send(json.dumps(refused.answer).encode())
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        short = isinstance(error, MemoryError) or "map segment" in text or "allocate memory" in text
        answer = {"stage": "memory" if short else "child", "subject": "", "message": text}
        connection.send(json.dumps(answer).encode())
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
