# SPDX-License-Identifier: Apache-2.0
"""`install PATH`: an executable that starts fast, and `PATH.pyc`, one file with all modules of the runtime.

pip's script imports `re`, reads every .pth file and searches each directory for each module; together
this costs more than the kernel's work of a start. It must be installed again after an update.
"""

from __future__ import annotations
import __future__

import ast
import marshal
import os
import shutil
import subprocess
import sys
import time
from hashlib import blake2b
from importlib.util import MAGIC_NUMBER

import ringfence_linux
import ringfence_runtime
from ringfence_runtime.cli.options import Globals, Parsed, expect, parse
from ringfence_runtime.errors import Error, UsageError
from ringfence_runtime.launcher import SOCKET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import CodeType

__all__ = ["install"]

#: of native code that was compiled from WebAssembly
_CACHE = "/var/cache/ringfence/wasm"
BASE = os.path.dirname(os.path.abspath(ringfence_runtime.__file__))
_PACKAGES = (os.path.dirname(os.path.abspath(ringfence_linux.__file__)), BASE)

# The module PATH.pyc: it finds the others in its own constant. {codes} is a dict of name -> (package?, code).
_MAIN = """
import gc, marshal, posix, sys
from _frozen_importlib import ModuleSpec
gc.disable()
CODES = {codes!r}
class Loader:
    @staticmethod
    def find_spec(name, path=None, target=None):
        entry = CODES.get(name)
        return None if entry is None else ModuleSpec(name, Loader, origin={base!r}, is_package=entry[0])
    @staticmethod
    def create_module(spec):
        return None
    @staticmethod
    def exec_module(module):
        module.__file__ = {base!r} + "/" + module.__name__
        exec(marshal.loads(CODES[module.__name__][1]), module.__dict__)
sys.meta_path.insert(0, Loader)
import ringfence_runtime
ringfence_runtime.INIT, ringfence_runtime.BUILD = {init!r}, {build!r}
ringfence_runtime.FALLBACK, ringfence_runtime.ENGINE = {fallback!r}, {engine!r}
from ringfence_runtime.cli import main
code = main()
try:
    sys.stdout.flush()
except OSError:
    code = code or 1
posix._exit(code)
"""


def _modules() -> dict[str, tuple[bool, bytes]]:
    """Returns every module of the runtime and of the Linux layer as marshalled code."""
    found: dict[str, tuple[bool, bytes]] = {}
    for base, path in _sources():
        name = os.path.relpath(path, os.path.dirname(base))[:-3].replace("/", ".")
        package = name.endswith(".__init__")
        found[name.removesuffix(".__init__")] = (package, marshal.dumps(_code(path)))
    return found


def _code(path: str) -> CodeType:
    """A module's code without its import of `__future__`, which is one more file that a start would read."""
    with open(path, "rb") as source:
        tree = ast.parse(source.read(), path)
    tree.body = [
        node for node in tree.body if not (isinstance(node, ast.ImportFrom) and node.module == "__future__")
    ]
    flags = __future__.annotations.compiler_flag
    code: CodeType = compile(tree, path, "exec", flags, dont_inherit=True, optimize=2)
    return code


def _sources() -> Iterator[tuple[str, str]]:
    """(directory of the package, path of a module)."""
    for base in _PACKAGES:
        for directory, _, files in os.walk(base):
            yield from (
                (base, os.path.join(directory, file)) for file in sorted(files) if file.endswith(".py")
            )


def bundle(init: str, *, fallback: bool, engine: tuple[str, str, str] = ("", "", "")) -> bytes:
    """Returns the bytes of PATH.pyc. `init` is the executable of native/init.c, or empty. `fallback`: whether
    Python executes a launch that the native init cannot. `engine`: see `ringfence_runtime.ENGINE`.
    """
    codes = _modules()
    build = blake2b(repr(sorted(codes.items())).encode(), digest_size=16).hexdigest()
    text = _MAIN.format(codes=codes, base=BASE, init=init, build=build, fallback=fallback, engine=engine)
    code = compile(text, "<ringfence-runtime>", "exec")
    header = MAGIC_NUMBER + (0).to_bytes(4, "little") + int(time.time()).to_bytes(4, "little") + bytes(4)
    return header + marshal.dumps(code)


def script(interpreter: str, target: str) -> str:
    """Returns the executable for a host without a C compiler."""
    if len(interpreter) > 120:
        raise UsageError(f"the interpreter's path is too long for a #! line: {interpreter}")
    return (
        f"#!{interpreter} -IS\nimport sys\nsys.argv[0] = {target!r}\nsys.orig_argv[2:3] = [{target!r}]\n"
        f"import runpy\nrunpy.run_path({target!r}, run_name='__main__')\n"
    )


def _compiler() -> str | None:
    return next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


def _engine(parsed: Parsed, target: str) -> tuple[str, str, str]:
    """Installs the engine for WebAssembly, if there is one. Returns `ringfence_runtime.ENGINE`."""
    from ringfence_runtime.cli.engine import find_library, install_engine

    library, compiler = parsed.text("wasm") or find_library(), _compiler()
    if not library:
        return "", "", ""
    if compiler is None or parsed.flag("no-compile"):
        if parsed.text("wasm"):
            raise Error("--wasm needs a C compiler")
        return "", "", ""
    return target, install_engine(library, target, compiler), parsed.text("wasm-cache", _CACHE)


def _compile(
    sources: Sequence[str], output: str, definitions: Sequence[str] = (), *, static: bool = False
) -> bool:
    """Compiles the program, statically linked if possible. Returns False without a working C compiler."""
    compiler = _compiler()
    if compiler is None:
        return False
    for linking in (["-static"], []) if not static else (["-static"],):
        files = [f"{BASE}/native/{source}" for source in sources]
        command = [compiler, "-O2", "-Wall", *linking, *definitions, "-o", output, *files]
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            return True
    return False


def _replace(path: str) -> None:
    os.chmod(f"{path}.new", 0o755)
    os.rename(f"{path}.new", path)


def install(settings: Globals, arguments: list[str]) -> int:
    """Writes PATH, PATH.pyc and PATH.init, each under a temporary name and renamed."""
    del settings
    options = {"no-compile": "f", "no-init": "f", "no-fallback": "f", "launcher": "s"}
    options |= {"wasm": "s", "wasm-cache": "s"}
    parsed = parse(arguments, options, interleaved=True)
    [path] = expect(parsed, "install", 1, 1)
    target = f"{os.path.abspath(path)}.pyc"
    if '"' in target + parsed.text("launcher") or "\\" in target:
        raise Error(f"cannot install to {path!r}")
    interpreter, may_compile = os.path.realpath(sys.executable), not parsed.flag("no-compile")
    init = f"{os.path.abspath(path)}.init"
    # Linked statically: the container has no library of the host.
    if (
        may_compile
        and not parsed.flag("no-init")
        and _compile(("init.c", "interpreter.c"), f"{init}.new", static=True)
    ):
        _replace(init)
    else:
        init = ""
    engine = _engine(parsed, f"{os.path.abspath(path)}.wasm")
    with open(f"{target}.new", "wb") as file:
        file.write(bundle(init, fallback=not parsed.flag("no-fallback"), engine=engine))
    os.rename(f"{target}.new", target)
    socket = parsed.text("launcher", SOCKET)
    definitions = [f'-DPYTHON="{interpreter}"', f'-DBUNDLE="{target}"', f'-DLAUNCHER="{socket}"']
    if not (may_compile and _compile(("launcher.c",), f"{path}.new", definitions)):
        with open(f"{path}.new", "w", encoding="utf-8") as text:
            text.write(script(interpreter, target))
    _replace(path)
    return 0
