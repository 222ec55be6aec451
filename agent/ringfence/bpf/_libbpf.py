# SPDX-License-Identifier: Apache-2.0
"""libbpf (soname libbpf.so.1) by ctypes. Maps by descriptor are in `_maps`.

Each function makes one call, and raises OSError with errno, the call and its subject. libbpf's pointers
are ints with a name for the type checker. `listen` enables keeping its messages in `LOG`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections import deque
from collections.abc import Iterator
from typing import Any, NewType

from ringfence.errors import KernelError

ObjectPtr = NewType("ObjectPtr", int)
ProgramPtr = NewType("ProgramPtr", int)
MapPtr = NewType("MapPtr", int)

BTF_KIND_DATASEC = 15
TYPE_TRACING = 26
ATTACH_TRACE_FENTRY = 24
ATTACH_MODIFY_RETURN = 26
ATTACH_LSM_MAC = 27
ATTACH_TRACE_ITER = 28
ATTACH_PERF_EVENT = 41

_LOG_LINE = 1 << 20  # a verifier log is one message; the relevant part is at its end
LOG: deque[str] = deque(maxlen=200)

_void = ctypes.c_void_p
_int = ctypes.c_int
_u32 = ctypes.c_uint32
_u64 = ctypes.c_uint64
_text = ctypes.c_char_p
_size = ctypes.c_size_t

_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "libbpf_major_version": (_u32, []),
    "libbpf_minor_version": (_u32, []),
    "libbpf_set_print": (_void, [_void]),
    "libbpf_num_possible_cpus": (_int, []),
    "bpf_object__open": (_void, [_text]),
    "bpf_object__load": (_int, [_void]),
    "bpf_object__close": (None, [_void]),
    "bpf_object__next_program": (_void, [_void, _void]),
    "bpf_object__next_map": (_void, [_void, _void]),
    "bpf_object__btf": (_void, [_void]),
    "bpf_object__find_map_by_name": (_void, [_void, _text]),
    "btf__find_by_name_kind": (_int, [_void, _text, _u32]),
    "btf__type_by_id": (_void, [_void, _u32]),
    "btf__name_by_offset": (_text, [_void, _u32]),
    "bpf_program__name": (_text, [_void]),
    "bpf_program__section_name": (_text, [_void]),
    "bpf_program__fd": (_int, [_void]),
    "bpf_program__expected_attach_type": (_int, [_void]),
    "bpf_program__set_type": (_int, [_void, _int]),
    "bpf_program__set_expected_attach_type": (_int, [_void, _int]),
    "bpf_program__set_attach_target": (_int, [_void, _int, _text]),
    "bpf_program__set_autoload": (_int, [_void, ctypes.c_bool]),
    "bpf_map__name": (_text, [_void]),
    "bpf_map__fd": (_int, [_void]),
    "bpf_map__type": (_int, [_void]),
    "bpf_map__key_size": (_u32, [_void]),
    "bpf_map__value_size": (_u32, [_void]),
    "bpf_map__max_entries": (_u32, [_void]),
    "bpf_map__is_internal": (ctypes.c_bool, [_void]),
    "bpf_map__set_max_entries": (_int, [_void, _u32]),
    "bpf_map__initial_value": (_void, [_void, ctypes.POINTER(_size)]),
    "bpf_map_create": (_int, [_int, _text, _u32, _u32, _u32, _void]),
    "bpf_map_lookup_elem": (_int, [_int, _void, _void]),
    "bpf_map_lookup_and_delete_elem": (_int, [_int, _void, _void]),
    "bpf_map_update_elem": (_int, [_int, _void, _void, _u64]),
    "bpf_map_delete_elem": (_int, [_int, _void]),
    "bpf_map_get_next_key": (_int, [_int, _void, _void]),
    "bpf_map_lookup_batch": (_int, [_int, _void, _void, _void, _void, ctypes.POINTER(_u32), _void]),
    "bpf_map_update_batch": (_int, [_int, _void, _void, ctypes.POINTER(_u32), _void]),
    "bpf_obj_pin": (_int, [_int, _text]),
    "bpf_obj_get": (_int, [_text]),
    "bpf_obj_get_info_by_fd": (_int, [_int, _void, ctypes.POINTER(_u32)]),
    "bpf_link_create": (_int, [_int, _int, _int, _void]),
    "bpf_iter_create": (_int, [_int]),
    "bpf_raw_tracepoint_open": (_int, [_text, _int]),
    "bpf_enable_stats": (_int, [_int]),
    "libbpf_find_vmlinux_btf_id": (_int, [_text, _int]),
}


_libc = ctypes.CDLL(None, use_errno=True)
_PRINT_FN = ctypes.CFUNCTYPE(_int, _int, _void, _void)


def _keep_message(level: int, template: int, arguments: int) -> int:
    """libbpf_print_fn_t. A va_list is passed as a pointer on x86_64 and on arm64."""
    if level > 1:  # LIBBPF_DEBUG
        return 0
    buffer = ctypes.create_string_buffer(_LOG_LINE if level == 0 else 1024)
    _libc.vsnprintf(buffer, _size(len(buffer)), _void(template), _void(arguments))
    LOG.append(buffer.value.decode("utf-8", "replace").rstrip("\n"))
    return 0


_keep_message_callback = _PRINT_FN(_keep_message)  # libbpf keeps a pointer to it: it must stay referenced


class _Library:
    """libbpf, opened on the first call, so that offline commands do not need it."""

    def __getattr__(self, name: str) -> Any:
        library = _open()
        for function, (result, arguments) in _SIGNATURES.items():
            try:
                bound = getattr(library, function)
            except AttributeError:
                raise KernelError(
                    f"libbpf lacks {function}: it is older than 1.0", hint="install libbpf1 1.0 or newer"
                ) from None
            bound.restype, bound.argtypes = result, arguments
            setattr(self, function, bound)
        self.libbpf_set_print(None)
        if name not in _SIGNATURES:
            raise AttributeError(name)
        return self.__dict__[name]


def _open() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise KernelError(
            f"libbpf.so.1 cannot be loaded: {error}", hint="install it: apt-get install libbpf1"
        ) from None


lib = _Library()


def listen(*, on: bool) -> None:
    """Keeps libbpf's messages, or not: there are 10,000 per load, each waits for the interpreter's lock."""
    lib.libbpf_set_print(_keep_message_callback if on else None)


def _fail(call: str, subject: object, code: int) -> OSError:
    return OSError(code, f"{call}: {os.strerror(code)}", str(subject))


def checked(result: int, call: str, subject: object) -> int:
    """Raises OSError for an error result: libbpf 1.x returns -errno."""
    if result < 0:
        raise _fail(call, subject, -result)
    return result


def version() -> tuple[int, int]:
    """Returns the version of the loaded library, not of its headers."""
    return lib.libbpf_major_version(), lib.libbpf_minor_version()


def possible_cpus() -> int:
    """Returns the number of values that a per-CPU map has for each key."""
    return checked(lib.libbpf_num_possible_cpus(), "libbpf_num_possible_cpus", "")


# ---- objects ----


def object_open(path: str) -> ObjectPtr:
    pointer = lib.bpf_object__open(os.fsencode(path))
    if not pointer:
        raise _fail("bpf_object__open", path, ctypes.get_errno())
    return ObjectPtr(pointer)


def object_load(obj: ObjectPtr) -> None:
    checked(lib.bpf_object__load(obj), "bpf_object__load", "")


def object_close(obj: ObjectPtr) -> None:
    lib.bpf_object__close(obj)


def programs(obj: ObjectPtr) -> Iterator[ProgramPtr]:
    pointer = lib.bpf_object__next_program(obj, None)
    while pointer:
        yield ProgramPtr(pointer)
        pointer = lib.bpf_object__next_program(obj, pointer)


def maps(obj: ObjectPtr) -> Iterator[MapPtr]:
    pointer = lib.bpf_object__next_map(obj, None)
    while pointer:
        yield MapPtr(pointer)
        pointer = lib.bpf_object__next_map(obj, pointer)


def section_variables(obj: ObjectPtr, section: str) -> dict[str, tuple[int, int]]:
    """Returns name -> (offset, size) of the variables of a data section, from the object's BTF."""
    btf = lib.bpf_object__btf(obj)
    found = lib.btf__find_by_name_kind(btf, section.encode(), BTF_KIND_DATASEC) if btf else -1
    if found < 0:
        return {}
    kind = lib.btf__type_by_id(btf, found)
    _, info, _ = struct.unpack("=3I", ctypes.string_at(kind, 12))  # struct btf_type
    entries = ctypes.string_at(kind + 12, 12 * (info & 0xFFFF))  # struct btf_var_secinfo[]
    variables = {}
    for variable, offset, size in struct.iter_unpack("=3I", entries):
        (name,) = struct.unpack("=I", ctypes.string_at(lib.btf__type_by_id(btf, variable), 4))
        variables[lib.btf__name_by_offset(btf, name).decode()] = (offset, size)
    return variables


# ---- programs ----


def program_name(program: ProgramPtr) -> str:
    return str(lib.bpf_program__name(program).decode())


def program_section(program: ProgramPtr) -> str:
    return str(lib.bpf_program__section_name(program).decode())


def program_fd(program: ProgramPtr) -> int:
    """Returns the descriptor; negative if the program was not loaded."""
    return int(lib.bpf_program__fd(program))


def program_attach_type(program: ProgramPtr) -> int:
    return int(lib.bpf_program__expected_attach_type(program))


def program_set_type(program: ProgramPtr, kind: int, attach_type: int) -> None:
    checked(lib.bpf_program__set_type(program, kind), "bpf_program__set_type", kind)
    checked(
        lib.bpf_program__set_expected_attach_type(program, attach_type),
        "bpf_program__set_expected_attach_type",
        attach_type,
    )


def program_set_target(program: ProgramPtr, function: str) -> None:
    """Sets the kernel function of a tracing program, whatever its section says. ESRCH: there is none."""
    result = lib.bpf_program__set_attach_target(program, 0, function.encode())
    checked(result, "bpf_program__set_attach_target", function)


def program_set_autoload(program: ProgramPtr, *, on: bool) -> None:
    checked(lib.bpf_program__set_autoload(program, on), "bpf_program__set_autoload", on)


# ---- maps of an object ----


def map_name(pointer: MapPtr) -> str:
    return str(lib.bpf_map__name(pointer).decode())


def map_shape(pointer: MapPtr) -> tuple[int, int, int, int, int]:
    """Returns descriptor (negative before the load), type, key size, value size, entries."""
    return (
        lib.bpf_map__fd(pointer),
        lib.bpf_map__type(pointer),
        lib.bpf_map__key_size(pointer),
        lib.bpf_map__value_size(pointer),
        lib.bpf_map__max_entries(pointer),
    )


def map_is_internal(pointer: MapPtr) -> bool:
    """Returns True for a data section, False for a map that the source declares."""
    return bool(lib.bpf_map__is_internal(pointer))


def map_set_max_entries(pointer: MapPtr, entries: int) -> None:
    checked(lib.bpf_map__set_max_entries(pointer, entries), "bpf_map__set_max_entries", entries)


def section_write(obj: ObjectPtr, section: str, offset: int, data: bytes) -> None:
    """Changes the initial value of a data section, before the load."""
    pointer = lib.bpf_object__find_map_by_name(obj, section.encode())
    size = _size()
    begin = lib.bpf_map__initial_value(pointer, ctypes.byref(size)) if pointer else None
    if not begin or offset + len(data) > size.value:
        raise _fail("bpf_map__initial_value", section, errno.EINVAL)
    ctypes.memmove(begin + offset, data, len(data))


# ---- links, pins, facts ----


def link_create(program: int, target: int, attach_type: int) -> int:
    return checked(lib.bpf_link_create(program, target, attach_type, None), "bpf_link_create", target)


def raw_tracepoint_open(program: int) -> int:
    """Creates a link of a tp_btf or lsm program: its BTF names the tracepoint or hook."""
    return checked(lib.bpf_raw_tracepoint_open(None, program), "bpf_raw_tracepoint_open", program)


def kernel_function_id(name: str, attach_type: int) -> int:
    """Returns the BTF id of a function, or of an LSM hook (ATTACH_LSM_MAC).

    OSError (ENOENT, ESRCH) if the kernel does not have it.
    """
    found = lib.libbpf_find_vmlinux_btf_id(name.encode(), attach_type)
    return checked(found, "libbpf_find_vmlinux_btf_id", name)


def iter_create(link: int) -> int:
    return checked(lib.bpf_iter_create(link), "bpf_iter_create", link)


def pin(fd: int, path: str) -> None:
    checked(lib.bpf_obj_pin(fd, os.fsencode(path)), "bpf_obj_pin", path)


def get_pinned(path: str) -> int:
    return checked(lib.bpf_obj_get(os.fsencode(path)), "bpf_obj_get", path)


def info(fd: int, size: int) -> bytes:
    """Returns `size` bytes of bpf_prog_info, bpf_map_info or bpf_link_info; 0 for unsupported fields."""
    buffer = ctypes.create_string_buffer(size)
    checked(lib.bpf_obj_get_info_by_fd(fd, buffer, ctypes.byref(_u32(size))), "bpf_obj_get_info_by_fd", fd)
    return buffer.raw


def enable_stats() -> int:
    """Enables run count and run time of every program while the descriptor is open (STATS_RUN_TIME)."""
    return checked(lib.bpf_enable_stats(0), "bpf_enable_stats", "")
