# SPDX-License-Identifier: Apache-2.0
"""The site of docs/ builds without a warning, and its links lead somewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.lint.files import ROOT, files

pytestmark = pytest.mark.slow  # three seconds a build, more on a loaded machine
REPOSITORY = "https://github.com/ringfence/ringfence/"


def build(config: Path, site: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs MkDocs as `make docs` does."""
    argv = [sys.executable, "-m", "mkdocs", "build", "--config-file", str(config), "--site-dir", str(site)]
    variables = {**os.environ, "NO_MKDOCS_2_WARNING": "1", **environment}
    return subprocess.run(argv, env=variables, capture_output=True, text=True, check=False)


class Page(HTMLParser):
    """The links, pictures, scripts and anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors = {""}
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collects them."""
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.targets.append(value)
            if name in ("id", "name") and value:
                self.anchors.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    directory = tmp_path_factory.mktemp("site")
    script = directory / "mermaid.min.js"
    script.write_text("// a stand-in for Mermaid\n")
    built = build(ROOT / "mkdocs.yml", directory / "site", MERMAID=str(script))
    assert built.returncode == 0, built.stdout + built.stderr
    return directory / "site"


def test_each_page_is_on_the_site(site: Path) -> None:
    """Those of docs/, README.md as the index of its directory."""
    for page in files(".md"):
        if page.parts[0] == "docs":
            name = page.relative_to("docs").with_suffix(".html")
            assert (site / name.with_name(name.name.replace("README.", "index."))).is_file(), page


def test_each_link_of_the_site_leads_somewhere(site: Path) -> None:
    """To a file and an anchor of the site; those to the repository, to a file that it has."""
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    broken = [
        f"{path.relative_to(site)}: {target}"
        for path, page in pages.items()
        for target in page.targets
        if not leads_somewhere(path, target, pages)
    ]
    assert not broken, "\n".join(broken)
    assert sum(len(page.targets) for page in pages.values()) > 1000


def leads_somewhere(path: Path, target: str, pages: dict[Path, Page]) -> bool:
    """Returns True if the target of a link is there; other sites are not asked."""
    link = urlsplit(target)
    if link.scheme:
        inside = target.removeprefix(REPOSITORY).partition("#")[0].split("/", 2)
        return not target.startswith(REPOSITORY) or inside[-1] == "" or (ROOT / inside[-1]).exists()
    file = (path.parent / unquote(link.path)).resolve() if link.path else path
    return file.is_file() and (file not in pages or unquote(link.fragment) in pages[file].anchors)


def test_mermaid_is_part_of_the_site_if_its_path_is_given(site: Path) -> None:
    """The pages with figures load it from there, before the theme asks for it."""
    assert (site / "assets/mermaid.min.js").read_text() == "// a stand-in for Mermaid\n"
    page = (site / "explanation/architecture.html").read_text()
    assert page.count('class="mermaid"') == 4
    assert 'src="../assets/mermaid.min.js"' in page


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a](missing.md)", "'missing.md'"),
        ("[a](../missing.md)", "'../missing.md'"),
        ("[a](README.md#missing)", "'README.md#missing'"),
        ("[a](/README.md)", "absolute link"),
    ],
)
def test_a_broken_link_fails_the_build(text: str, said: str, tmp_path: Path) -> None:
    """Each kind, with the page and the target."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/README.md").write_text(f"# A page\n\n{text}\n")
    config = f"INHERIT: {ROOT / 'mkdocs.yml'}\nhooks: [{ROOT / 'tools/site.py'}]\nnav: [README.md]\n"
    (tmp_path / "mkdocs.yml").write_text(config)
    built = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert built.returncode != 0
    assert "README.md" in built.stderr
    assert said in built.stderr
