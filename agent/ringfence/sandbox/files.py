# SPDX-License-Identifier: Apache-2.0
"""hosts, resolv.conf and hostname of a sandbox, as texts.

They are mounted over the image's files with these names, including symlinks.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence

from ringfence.sandbox.errors import UsageError

__all__ = ["existing", "hosts_text", "read", "resolver_text", "search_domain", "server"]

# systemd-resolved writes the real servers there, for clients that cannot use its loopback address.
_RESOLVED = "/run/systemd/resolve/resolv.conf"
_LIMIT = 1 << 20
_LOCAL = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


def read(path: str) -> str:
    """Returns a small file of the host; empty if it is missing."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_LIMIT)
    except OSError:
        return ""


def hosts_text(
    name: str, addresses: Sequence[str], extra: Sequence[tuple[str, str]], *, gateway: str, host: bool
) -> str:
    """Returns /etc/hosts. `host`: the sandbox has the host's network, thus the host's names."""
    text = (read("/etc/hosts").rstrip("\n") + "\n" if host else "") or _LOCAL
    for address in addresses or ["127.0.1.1"]:
        text += f"{address}\t{name}\n"
    for other, address in extra:
        if address == "host-gateway":
            address = "127.0.0.1" if host else gateway
            if not address:
                raise UsageError("--add-host: host-gateway needs --network bridge or host")
        text += f"{address}\t{other}\n"
    return text


def resolver_text(
    servers: Sequence[str], search: Sequence[str], options: Sequence[str], *, mode: str
) -> tuple[str, bool]:
    """Returns (/etc/resolv.conf, True if it has a reachable server). `mode`: of the network."""
    lines = read("/etc/resolv.conf").splitlines() if mode != "none" else []
    if mode not in ("none", "host") and not servers and not _servers(lines):
        lines = read(_RESOLVED).splitlines() or lines
    chosen = list(servers) or (_all_servers(lines) if mode == "host" else _servers(lines))
    kept_search = list(search) or [
        word for line in lines if line.startswith("search ") for word in line.split()[1:]
    ]
    kept_options = list(options) or [
        word for line in lines if line.startswith("options ") for word in line.split()[1:]
    ]
    text = "".join(f"nameserver {server}\n" for server in chosen)
    if kept_search and kept_search != ["."]:
        text += f"search {' '.join(kept_search)}\n"
    if kept_options:
        text += f"options {' '.join(kept_options)}\n"
    return text, bool(chosen) or mode == "none"


def _all_servers(lines: Sequence[str]) -> list[str]:
    return [words[1] for line in lines if len(words := line.split()) > 1 and words[0] == "nameserver"]


def _servers(lines: Sequence[str]) -> list[str]:
    """Returns the servers that are not on the host's own loopback."""
    found = []
    for text in _all_servers(lines):
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            continue
        if not address.is_loopback and not address.is_link_local:
            found.append(text)
    return found


def server(text: str) -> str:
    """`--dns`."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise UsageError(f"--dns: {text!a} is not an address") from None


def search_domain(text: str) -> str:
    """Checks `--dns-search` and `--dns-option`: one word."""
    if not text or any(letter.isspace() or not letter.isprintable() for letter in text):
        raise UsageError(f"--dns-search: {text!a} is not a word")
    return text


def existing(root: int, names: Sequence[str]) -> list[str]:
    """Returns the existing ones of the paths (such as /etc/hosts) in a root, without following symlinks."""
    found = []
    for name in names:
        try:
            os.stat(name.lstrip("/"), dir_fd=root, follow_symlinks=False)
        except OSError:
            continue
        found.append(name)
    return found
