# SPDX-License-Identifier: Apache-2.0
"""The allowlist of a layer's extended attributes.

Attributes of overlayfs are never kept: `trusted.overlay.redirect` and `metacopy` in a layer would make
the kernel show files of other layers. Labels and access lists of the builder's host
(`security.selinux`, `system.posix_acl_*`) have no meaning on this one.
"""

from __future__ import annotations

from struct import unpack_from

from ringfence_runtime.images.errors import LayerError, show

__all__ = ["CAPABILITY", "chosen"]

CAPABILITY = b"security.capability"
_USER = b"user."
_OVERLAY = b"user.overlay."
_REVISION_2, _REVISION_3 = 0x02000000, 0x03000000


def chosen(
    xattrs: dict[bytes, bytes], name: bytes, *, regular: bool
) -> tuple[dict[bytes, bytes], list[bytes]]:
    """Returns the attributes to set, and the names of omitted ones."""
    kept: dict[bytes, bytes] = {}
    dropped: list[bytes] = []
    for key, value in xattrs.items():
        if key == CAPABILITY and regular:
            _check_capability(value, name)
            kept[key] = value
        elif key.startswith(_USER) and not key.startswith(_OVERLAY):
            kept[key] = value
        else:
            dropped.append(key)
    return kept, dropped


def _check_capability(value: bytes, name: bytes) -> None:
    """linux/capability.h, struct vfs_cap_data: revision 2 (20 bytes), or 3 with the uid of a namespace's
    root."""
    if len(value) in (20, 24):
        revision = unpack_from("<I", value)[0] & 0xFF000000
        if (revision, len(value)) in ((_REVISION_2, 20), (_REVISION_3, 24)):
            return
    raise LayerError(f"{show(name)}: its file capabilities are not a capability set: {show(value)}")
