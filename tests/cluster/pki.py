# SPDX-License-Identifier: Apache-2.0
"""Keys, certificates, tokens and configuration files of a cluster, for the time of a test."""

from __future__ import annotations

import json
import secrets
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["ADMIN", "COMPONENTS", "Pki"]

ADMIN = "admin"
#: name -> user and groups of its token
COMPONENTS = {
    ADMIN: ("admin", "system:masters"),
    "kubelet": ("system:node:{node}", "system:nodes"),
    "controllers": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
}


class Pki:
    """All files in one directory."""

    def __init__(self, directory: Path, node: str, server: str, addresses: tuple[str, ...]) -> None:
        self.directory = directory
        self.server = server
        directory.mkdir()
        self._openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt",
                      "-subj", "/CN=test-ca", "-days", "2")  # fmt: skip
        names = ",".join((*(f"IP:{one}" for one in addresses), "DNS:kubernetes.default.svc"))
        self._sign("server", "/CN=kube-apiserver", f"subjectAltName={names}")
        self._sign("client", "/O=system:masters/CN=kube-apiserver", "extendedKeyUsage=clientAuth")
        self._openssl("genrsa", "-out", "sa.key", "2048")
        self._openssl("rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub")
        self._tokens(node)

    def path(self, name: str) -> str:
        """Returns the path of a file."""
        return str(self.directory / name)

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.directory, check=True, capture_output=True)

    def _sign(self, name: str, subject: str, extension: str) -> None:
        (self.directory / f"{name}.ext").write_text(extension)
        self._openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
                      "-subj", subject)  # fmt: skip
        authority = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
        self._openssl("x509", "-req", "-in", f"{name}.csr", *authority, "-out", f"{name}.crt",
                      "-extfile", f"{name}.ext")  # fmt: skip

    def _tokens(self, node: str) -> None:
        lines = []
        for component, (user, groups) in COMPONENTS.items():
            token = secrets.token_hex(16)
            lines.append(f'{token},{user.format(node=node)},{component},"{groups}"')
            (self.directory / f"{component}.token").write_text(token)
            (self.directory / f"{component}.kubeconfig").write_text(json.dumps(self._kubeconfig(token)))
        (self.directory / "tokens.csv").write_text("\n".join(lines) + "\n")

    def _kubeconfig(self, token: str) -> dict[str, Any]:
        cluster = {"server": self.server, "certificate-authority": self.path("ca.crt")}
        return {
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "x", "cluster": cluster}],
            "users": [{"name": "x", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        }  # fmt: skip
