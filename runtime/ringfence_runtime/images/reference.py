# SPDX-License-Identifier: Apache-2.0
"""Which image of a layout or archive is meant: `PATH:NAME`, or `PATH:@N` by its place, from 0."""

from __future__ import annotations

import os

from ringfence_runtime.images.errors import ImageNotFoundError, LayoutError, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["choose", "several_of_one_name", "split_reference"]

_SHOWN = 20
_ADDED = ("docker.io/library/", "docker.io/", "localhost/")


def split_reference(text: str) -> tuple[str, str]:
    """Splits `PATH[:REFERENCE]`: the path is the longest one that exists, as both may contain `:` and `/`.

    If none exists, the last component is split at its first colon.
    """
    if os.path.lexists(text):
        return text, ""
    end = text.rfind(":")
    while end > 0:
        if os.path.lexists(text[:end]):
            return text[:end], text[end + 1 :]
        end = text.rfind(":", 0, end)
    directory, slash, last = text.rpartition("/")
    last, _, reference = last.partition(":")
    return directory + slash + last, reference


def _short(name: str) -> str:
    """Returns a name without the registry that Docker or Podman adds to a short name, and with a tag."""
    if "@" not in name and ":" not in name.rpartition("/")[2]:
        name += ":latest"
    for registry in _ADDED:
        if name.startswith(registry):
            return name.removeprefix(registry)
    return name


def choose(images: Sequence[Sequence[str]], reference: str) -> list[int]:
    """Returns the place of the image that `reference` means; without one, of the only image.

    `images` are the names of each image, the best one first. Images that do not differ by name (one for each
    platform) are returned together. Raises an error that lists the names.
    """
    found = list(range(len(images)))
    if reference.startswith("@") and reference[1:].isdecimal():
        found = [place for place in found if place == int(reference[1:])]
    elif reference:
        found = [place for place in found if reference in images[place]] or [
            place for place in found if _short(reference) in map(_short, images[place])
        ]
    if len({tuple(images[place]) for place in found}) == 1:
        return found
    known = [show(names[0]) if names else f"@{place}" for place, names in enumerate(images)]
    listed = ", ".join(known[:_SHOWN]) + (f" and {len(known) - _SHOWN} more" if known[_SHOWN:] else "")
    if not found:
        hint = f"it has: {listed or 'none'}"
        raise ImageNotFoundError(f"the source has no image called {show(reference)}", hint=hint)
    raise LayoutError("the source has several images", hint=f"name one, as in PATH:NAME: {listed}")


def several_of_one_name(places: Sequence[int]) -> LayoutError:
    """The error for images that only their places distinguish."""
    hint = f"choose one by its place: PATH:@{places[0]} to PATH:@{places[-1]}"
    return LayoutError("the source has several images of one name, or without one", hint=hint)
