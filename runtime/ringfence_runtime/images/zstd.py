# SPDX-License-Identifier: Apache-2.0
"""zstd: by Python's own module since 3.14, else by the `zstd` program with a bounded window.

Without either, a clear error.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from typing import Any, Protocol

from ringfence_runtime.images.errors import ImageError, LayerError

__all__ = ["zstd_chunks"]

CHUNK = 256 << 10
WINDOW_LOG = 27  # 128 MiB, the most that `zstd --long` writes; a frame may ask for 2 TiB of memory otherwise
MODULE = "compression.zstd"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class _Blob(Protocol):
    digest: str

    def read(self, size: int, /) -> bytes: ...


def zstd_chunks(blob: _Blob, head: bytes) -> Iterator[bytes]:
    """The uncompressed bytes of `head` and what follows it in `blob`."""
    try:
        module = importlib.import_module(MODULE)
    except ImportError:
        program = shutil.which("zstd", path=PATH)
        if program is None:
            raise ImageError(
                f"layer {blob.digest} is compressed with zstd, which this Python cannot read",
                hint="install the zstd program, use Python 3.14, or let skopeo convert the image "
                     "(--dest-compress-format gzip)") from None  # fmt: skip
        return _by_program(program, blob, head)
    return _by_module(module, blob, head)


def _by_module(module: Any, blob: _Blob, data: bytes) -> Iterator[bytes]:
    options = {module.DecompressionParameter.window_log_max: WINDOW_LOG}
    while data:
        frame = module.ZstdDecompressor(options=options)
        while not frame.eof:
            try:
                out = frame.decompress(data, 4 * CHUNK)
            except module.ZstdError as error:
                raise LayerError(f"layer {blob.digest} is not valid zstd: {error}") from None
            if out:
                yield out
            data = b""
            if frame.needs_input and not frame.eof:
                data = blob.read(CHUNK)
                if not data:
                    raise LayerError(f"layer {blob.digest} ends inside its zstd stream")
        data = frame.unused_data or blob.read(CHUNK)


class _Feeder(threading.Thread):
    """Writes the compressed bytes to the program, so that reading its output cannot deadlock."""

    def __init__(self, blob: _Blob, head: bytes, pipe: int) -> None:
        super().__init__(name="zstd-feeder", daemon=True)
        self.blob = blob
        self.head = head
        self.pipe = pipe
        self.error: BaseException | None = None

    def run(self) -> None:
        data = self.head
        try:
            while data:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(self.pipe, rest) :]
                data = self.blob.read(CHUNK)
        except BrokenPipeError:
            pass  # the program has failed; its exit code reports it
        except BaseException as error:  # passed to the reading thread, which raises it
            self.error = error
        finally:
            os.close(self.pipe)


def _by_program(program: str, blob: _Blob, head: bytes) -> Iterator[bytes]:
    argv = [program, "--decompress", "--stdout", "--quiet", f"--memory={1 << (WINDOW_LOG - 20)}MB"]
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                             env={"PATH": PATH, "LC_ALL": "C"}, bufsize=0)  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    feeder = _Feeder(blob, head, os.dup(child.stdin.fileno()))
    child.stdin.close()
    feeder.start()
    try:
        while out := child.stdout.read(4 * CHUNK):
            yield out
        feeder.join()
        code = child.wait()
        if feeder.error is not None:
            raise feeder.error
        if code:
            raise LayerError(f"layer {blob.digest} is not valid zstd")
    finally:
        child.stdout.close()
        child.kill()
        child.wait()
        feeder.join()
