# SPDX-License-Identifier: Apache-2.0
"""Tables of secrets: names of variables and flags, forms of keys, flags of programs.

Also the one function that decides whether a name is a secret's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

__all__ = ["FORMS", "HINT", "PROGRAMS", "Flags", "is_header", "is_secret"]

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRET = frozenset(
    ("pass", "password", "passwd", "passphrase", "passcode", "pwd", "secret", "token", "credential",
     "credentials", "creds", "apikey")
)  # fmt: skip
_SECRET_ENDS = (
    "password", "passwd", "passphrase", "pass", "secret", "token", "credentials", "apikey", "accesskey",
    "secretkey", "accountkey", "privatekey", "authkey", "masterkey", "licensekey", "encryptionkey",
    "signingkey", "pwd",
)  # fmt: skip
_NO_SECRET = frozenset(("bypass", "compass", "overpass", "trespass", "oldpwd"))
_KEY_OF = frozenset(
    ("access", "account", "admin", "api", "app", "application", "auth", "client", "crypt", "deploy",
     "encryption", "license", "master", "private", "root", "secret", "service", "session", "shared",
     "signature", "signing", "storage", "subscription")
)  # fmt: skip
#: a name that ends or begins with one of these describes a secret, but does not contain one
_ABOUT_ENDS = frozenset(
    ("age", "bucket", "count", "dir", "directory", "enabled", "endpoint", "env", "expires", "expiry", "file",
     "fd", "format", "len", "length", "limit", "lifetime", "max", "min", "mode", "name", "path", "policy",
     "prompt", "required", "size", "stdin", "timeout", "ttl", "type", "uri", "url", "version")
)  # fmt: skip
_ABOUT_BEGINS = frozenset(("no", "ask", "with", "without", "disable", "show", "max", "min"))
_HEADERS = frozenset(("authorization", "proxy-authorization", "cookie", "set-cookie"))


@lru_cache(4096)
def is_secret(name: str) -> bool:
    """Returns True if a variable, flag or key of this name holds a secret.

    Words may be separated by underscores, dashes, dots or camelCase.
    """
    bare = name.strip("-._")
    if bare in ("PWD", "OLDPWD"):
        return False
    words = [word.lower() for word in _WORDS.findall(bare)]
    if not words or words[-1] in _ABOUT_ENDS or words[0] in _ABOUT_BEGINS:
        return False
    for before, word in zip(["", *words], words, strict=False):
        if word in _SECRET or (word.endswith(_SECRET_ENDS) and word not in _NO_SECRET):
            return True
        if word in ("key", "keys") and before in _KEY_OF:
            return True
    return False


def is_header(name: str) -> bool:
    """Returns True if the whole value of this HTTP header is a secret. `-HNAME` is curl's form."""
    return name.lower().removeprefix("-h") in _HEADERS


#: well-known key formats, and other secrets without a name; each pattern hides its groups
FORMS = tuple(
    re.compile(text)
    for text in (
        # Authorization without the header's name
        r"\b[Bb]earer\s+([A-Za-z0-9._~+/=-]{8,})",
        r"\b[Bb]asic\s+(?=[A-Za-z0-9+/]*[A-Z0-9=])([A-Za-z0-9+/=]{8,})",
        # scheme://user:password@host, up to the last @; a port is not a password. Also a token as the user.
        r"://[^\s/:@?#]{0,256}:(?!\d{1,5}(?:[/?#]|$))([^\s?#]+)@",
        r"\bhttps?://([^\s/:@?#]{16,256})@",
        r"[?&](?:sig|X-Amz-Signature|X-Goog-Signature)=([^\s&#\"']+)",
        r"(?:hooks\.slack\.com/(?:services|workflows)|discord(?:app)?\.com/api/webhooks)/([^\s\"']+)",
        r"\b((?:AKIA|ASIA)[0-9A-Z]{16})\b",
        r"\b(gh[pousr]_[0-9A-Za-z]{20,}|github_pat_[0-9A-Za-z_]{20,}|glpat-[0-9A-Za-z_-]{20,})",
        r"\b(xox[abceoprs]-[0-9A-Za-z-]{10,}|xapp-[0-9A-Za-z-]{10,})",
        r"\b([sr]k_(?:live|test)_[0-9A-Za-z]{8,}|whsec_[0-9A-Za-z]{16,})",
        r"\b(AIza[0-9A-Za-z_-]{30,}|ya29\.[0-9A-Za-z_-]{20,})",
        r"\b(npm_[0-9A-Za-z]{30,}|pypi-[0-9A-Za-z_-]{50,}|dckr_pat_[0-9A-Za-z_-]{20,})",
        r"\b(sk-(?:ant-|proj-)?[0-9A-Za-z_-]{20,}|SG\.[0-9A-Za-z_-]{16,}\.[0-9A-Za-z_-]{16,})",
        r"\b(hv[sbr]\.[0-9A-Za-z_-]{20,}|dop_v1_[0-9a-f]{32,}|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32,})",
        r"\b(eyJ[0-9A-Za-z_-]{8,}\.eyJ[0-9A-Za-z_-]{8,}(?:\.[0-9A-Za-z_-]*)?)",
        r"(-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----.*|AGE-SECRET-KEY-1[0-9A-Z]{20,})",
    )
)


#: literals of these patterns: a text without any of them is not searched further
HINT = re.compile(
    r"earer|asic|://|[?&]|AKIA|ASIA|gh[pousr]_|ithub_pat|glpat|xox|xapp|_live_|_test_|whsec|AIza|ya29|npm_|pypi-|"
    r"dckr|sk-|SG\.|hv[sbr]\.|dop_v1|shp|eyJ|BEGIN|AGE-|slack|iscord"
)


class Flags(NamedTuple):
    """Flags of a program that take a secret.

    `next`: as the next word; `glued`: without a blank; `pair`: as the second half of USER:PASSWORD, next
    or glued. `only`: a word that must precede them.
    """

    next: tuple[str, ...] = ()
    glued: tuple[str, ...] = ()
    pair: tuple[str, ...] = ()
    only: str = ""


_MYSQL = Flags(glued=("-p",))
_LOGIN = Flags(next=("-p",), glued=("-p",), only="login")
_LDAP = Flags(next=("-w", "-s", "-a"), glued=("-w",))
_MONGO = Flags(next=("-p",))
_SNMP = Flags(next=("-A", "-X", "-c"))
_SMB = Flags(pair=("-U", "--user"))
_OPENSSL = Flags(next=("-passin", "-passout", "-pass", "-k", "-K"))
#: by the program's file name; flags named --password and the like need no entry
PROGRAMS: Mapping[str, Flags] = {
    "mysql": _MYSQL, "mysqldump": _MYSQL, "mysqladmin": _MYSQL, "mysqlimport": _MYSQL, "mysqlcheck": _MYSQL,
    "mysqlbinlog": _MYSQL, "mariadb": _MYSQL, "mariadb-dump": _MYSQL, "mariadb-admin": _MYSQL,
    "7z": _MYSQL, "7za": _MYSQL, "7zr": _MYSQL, "rar": _MYSQL, "unrar": _MYSQL,
    "sshpass": Flags(next=("-p",), glued=("-p",)),
    "docker": _LOGIN, "podman": _LOGIN, "nerdctl": _LOGIN, "buildah": _LOGIN, "skopeo": _LOGIN,
    "helm": _LOGIN, "oras": _LOGIN, "crane": _LOGIN, "oc": _LOGIN, "az": _LOGIN, "cf": _LOGIN,
    "crictl": Flags(pair=("--creds",)),
    "redis-cli": Flags(next=("-a",)), "valkey-cli": Flags(next=("-a",)), "keydb-cli": Flags(next=("-a",)),
    "ldapsearch": _LDAP, "ldapadd": _LDAP, "ldapmodify": _LDAP, "ldapdelete": _LDAP, "ldapwhoami": _LDAP,
    "ldapcompare": _LDAP, "ldapmodrdn": _LDAP, "ldapexop": _LDAP, "ldappasswd": _LDAP,
    "mongo": _MONGO, "mongosh": _MONGO, "mongodump": _MONGO, "mongorestore": _MONGO, "mongoexport": _MONGO,
    "mongoimport": _MONGO,
    "curl": Flags(next=("-b", "--cookie", "--oauth2-bearer"),
                  pair=("-u", "--user", "-U", "--proxy-user", "-E", "--cert", "--proxy-cert")),
    "wget": Flags(pair=("--user",)),
    "http": Flags(pair=("-a", "--auth")), "https": Flags(pair=("-a", "--auth")),
    "smbclient": _SMB, "rpcclient": _SMB, "smbget": _SMB,
    "snmpget": _SNMP, "snmpwalk": _SNMP, "snmpset": _SNMP, "snmpbulkwalk": _SNMP,
    "openssl": _OPENSSL, "zip": Flags(next=("-P",)), "unzip": Flags(next=("-P",)),
    "sqlcmd": Flags(next=("-P",), glued=("-P",)), "bcp": Flags(next=("-P",), glued=("-P",)),
    "ipmitool": Flags(next=("-P",)), "xfreerdp": Flags(glued=("/p:",)),
}  # fmt: skip
