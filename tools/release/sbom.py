# SPDX-License-Identifier: Apache-2.0
"""A software bill of materials of a release, as an SPDX 2.3 document in JSON.

Each artifact is a package with the checksum of its file; what it contains, or asks the distribution or pip
for, is a package too, with a package URL by which scanners find it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["LICENCE", "Artifact", "Component", "document"]

HOME = "https://github.com/ringfence/ringfence"
LICENCE = "Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)"


class Component(NamedTuple):
    """Somebody else's package. `kind`: pypi, deb. An empty version: any that the artifact accepts."""

    kind: str
    name: str
    version: str = ""
    architecture: str = ""
    distribution: str = "debian"  # of a deb

    @property
    def url(self) -> str:
        """The package URL (purl)."""
        place = f"deb/{self.distribution}" if self.kind == "deb" else self.kind
        version = f"@{self.version.replace('+', '%2B').replace(':', '%3A')}" if self.version else ""
        return f"pkg:{place}/{self.name}{version}" + (
            f"?arch={self.architecture}" if self.architecture else ""
        )


class Artifact(NamedTuple):
    """One file of the release, what is in it, and what it needs beside it."""

    path: Path
    contains: Sequence[Component] = ()
    needs: Sequence[Component] = ()


def document(version: str, date: int, artifacts: Iterable[Artifact]) -> str:
    """Returns the document. The same arguments give the same text."""
    described = list(artifacts)
    packages = {_id(one.path.name): _artifact(one.path, version) for one in described}
    relations = [_relation("SPDXRef-DOCUMENT", "DESCRIBES", name) for name in packages]
    for one in described:
        for kind, components in (("CONTAINS", one.contains), ("DEPENDS_ON", one.needs)):
            for component in components:
                packages[_id(component.url)] = _component(component)
                relations.append(_relation(_id(one.path.name), kind, _id(component.url)))
    digest = hashlib.sha256(json.dumps([packages, relations]).encode()).hexdigest()
    value = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"ringfence-{version}",
        "documentNamespace": f"{HOME}/spdx/{version}-{digest[:32]}",
        "creationInfo": {
            "created": datetime.fromtimestamp(date, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": ["Organization: The Ringfence maintainers", "Tool: ringfence-tools.release"],
        },
        "packages": list(packages.values()),
        "relationships": relations,
    }
    return json.dumps(value, indent=1) + "\n"


def _id(text: str) -> str:
    # Letters, digits, `.` and `-` alone. The digest keeps two texts apart that differ in others.
    return f"SPDXRef-{re.sub(r'[^A-Za-z0-9.-]+', '-', text)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _relation(one: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}


def _artifact(path: Path, version: str) -> dict[str, Any]:
    return {
        "SPDXID": _id(path.name),
        "name": "ringfence",
        "versionInfo": version,
        "packageFileName": path.name,
        "supplier": "Organization: The Ringfence maintainers",
        "downloadLocation": HOME,
        "filesAnalyzed": False,
        "checksums": [
            {"algorithm": "SHA256", "checksumValue": hashlib.sha256(path.read_bytes()).hexdigest()}
        ],
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": LICENCE,
        "copyrightText": "NOASSERTION",
    }


def _component(component: Component) -> dict[str, Any]:
    return {
        "SPDXID": _id(component.url),
        "name": component.name,
        **dict(_version(component)),
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": component.url,
            }
        ],
    }


def _version(component: Component) -> Iterator[tuple[str, str]]:
    if component.version:
        yield "versionInfo", component.version
