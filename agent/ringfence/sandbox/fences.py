# SPDX-License-Identifier: Apache-2.0
"""The restrictions of a sandbox in its OCI configuration: capabilities, seccomp, Landlock, masked paths.

The caller of `oci.make_config` adds policies and the agent to the finished configuration.
"""

from __future__ import annotations

from typing import Any

from ringfence.sandbox import learned
from ringfence.sandbox.errors import UsageError
from ringfence.sandbox.request import Fences

__all__ = ["capabilities", "landlock", "seccomp"]


def _full(option: str, name: str) -> str:
    from ringfence_linux.capabilities import CAPABILITIES

    full = name.upper() if name.upper().startswith("CAP_") else f"CAP_{name.upper()}"
    if full != "CAP_ALL" and full not in CAPABILITIES:
        raise UsageError(f"{option}: unknown capability {name!a}", hint="see capabilities(7)")
    return full


def capabilities(fences: Fences) -> list[str]:
    """Returns Docker's fourteen, plus added and minus dropped ones; accepts ALL."""
    from ringfence_linux.capabilities import CAPABILITIES
    from ringfence_runtime.security.caps import DEFAULT

    if fences.learned:
        return [
            _full(f"{fences.learned}/capabilities.txt", each) for each in learned.capabilities(fences.learned)
        ]
    added = {_full("--cap-add", name) for name in fences.cap_add}
    dropped = {_full("--cap-drop", name) for name in fences.cap_drop}
    if "CAP_ALL" in added:
        chosen = set(CAPABILITIES) - dropped
    elif "CAP_ALL" in dropped:
        chosen = added
    else:
        chosen = (set(DEFAULT) | added) - dropped
    return [name for name in CAPABILITIES if name in chosen]


def seccomp(fences: Fences) -> dict[str, Any] | None:
    """`linux.seccomp`; None: no filter."""
    from ringfence_linux import strictjson

    if fences.learned:
        return learned.seccomp(fences.learned)
    if fences.seccomp == "unconfined":
        return None
    if fences.seccomp == "default":
        from ringfence_runtime.security.default_profile import profile as default_profile

        return default_profile(capabilities(fences))
    try:
        with open(fences.seccomp, "rb") as file:
            profile = strictjson.loads(file.read())
    except OSError as error:
        raise UsageError(f"--security-opt seccomp: {fences.seccomp}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"--security-opt seccomp: {fences.seccomp}: {error}") from None
    if not isinstance(profile, dict):
        raise UsageError(f"--security-opt seccomp: {fences.seccomp} is not a profile")
    return profile


def landlock(fences: Fences, *, read_only: bool) -> dict[str, Any] | None:
    """Returns `linux.landlock`: only files below the sandbox's own root are accessible, by any path.

    With a read-only root the rules follow from the mounts. With a writable one they must allow everything
    below it: Landlock's rights are inherited downwards, so the root of a tree with one read-only mount
    could not be writable, and `mkdir /data` would fail.
    """
    if not fences.landlock:
        return None
    if fences.learned:
        return learned.landlock(fences.learned)
    if read_only:
        return {"derive": True}
    return {"derive": False, "read": ["/"], "write": ["/"], "execute": ["/"]}
