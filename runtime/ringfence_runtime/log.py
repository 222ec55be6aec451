# SPDX-License-Identifier: Apache-2.0
"""Warnings and errors: to stderr for users, and to `--log` in text or JSON for engines."""

from __future__ import annotations

import os
import sys
import time

from ringfence_linux import strictjson
from ringfence_runtime.errors import Error, UsageError

__all__ = ["Log", "configure", "debug", "error", "shows", "use", "warn"]

LEVELS = {"debug": 0, "info": 1, "warning": 2, "warn": 2, "error": 3}


class Log:
    """The destination of messages: one per process, set by `configure`; the launcher has one per client."""

    def __init__(self, stderr: int = 2) -> None:
        self.stderr = stderr
        self.fd = -1
        self.json = False
        self.level = 2
        self.name = "ringfence-runtime"
        self.syslog = ""

    def emit(self, level: str, message: str, *, stderr: bool, more: str = "") -> None:
        """`more` is for the log only."""
        if LEVELS[level] < self.level:
            return
        safe = message.encode("utf-8", "backslashreplace").decode()
        if self.fd >= 0:
            os.write(self.fd, self._record(level, f"{safe}{more}").encode("utf-8", "backslashreplace"))
        if self.syslog:
            import syslog  # already imported by `configure`: inside a container no import is possible

            syslog.openlog(self.syslog)
            syslog.syslog((7, 6, 4, 3)[LEVELS[level]], f"{safe}{more}")
        if stderr or (self.fd < 0 and not self.syslog):
            # Control characters in a container's text must not reach a terminal.
            shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in safe)
            try:
                os.write(self.stderr, f"{self.name}: {shown}\n".encode())
            except OSError:
                pass

    def _record(self, level: str, message: str) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self.json:
            return strictjson.dumps({"level": level, "msg": message, "time": stamp}) + "\n"
        return f'time="{stamp}" level={level} msg={strictjson.dumps(message)}\n'


_log = Log()


def use(other: Log) -> Log:
    """Sends messages to `other` from now on; returns the previous destination."""
    global _log
    before, _log = _log, other
    return before


def configure(path: str, *, form: str, level: str, name: str = "") -> None:
    """Opens `--log`; accepts crun's prefixes `file:` and `syslog:`. UsageError for another format."""
    if form not in ("text", "json"):
        raise UsageError(f"unknown log format {form!r}", hint="text or json")
    if level not in LEVELS:
        raise UsageError(f"unknown log level {level!r}", hint=", ".join(LEVELS))
    _log.json = form == "json"
    _log.level = LEVELS[level]
    if name:
        _log.name = os.path.basename(name)
    path = path.removeprefix("file:")
    if path.startswith("syslog:"):
        import syslog  # noqa: F401

        _log.syslog = path.removeprefix("syslog:") or _log.name
    elif path:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            _log.fd = os.open(path, flags, 0o644)
        except OSError as failure:
            raise Error(f"cannot open the log {path}: {failure.strerror}") from None


def shows(level: str) -> bool:
    """Returns True if messages of this level are written."""
    return LEVELS[level] >= _log.level


def debug(message: str) -> None:
    """For --debug."""
    _log.emit("debug", message, stderr=True)


def warn(message: str) -> None:
    """Writes a warning to the log, or to stderr without a log."""
    _log.emit("warning", message, stderr=False)


def error(message: str, hint: str = "") -> None:
    """Writes an error to both; the hint is a separate line on stderr, and part of the message in the log."""
    _log.emit("error", message, stderr=True, more=f" ({hint})" if hint else "")
    if hint:
        os.write(_log.stderr, f"  hint: {hint}\n".encode("utf-8", "backslashreplace"))
    sys.stderr.flush()
