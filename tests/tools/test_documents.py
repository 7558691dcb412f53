"""The documents as the Debian package has them: Markdown and HTML whose links work."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]


class Page(HTMLParser):
    """Where a page leads, and what can be led to in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.names: set[str] = set()
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("href", "src"):
                self.targets.append(value or "")
            elif name == "id":
                self.names.add(value or "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("documents")
    subprocess.run([sys.executable, ROOT / "tools/documents.py", made], check=True)
    return made


def test_every_document_is_there_as_text_and_as_html(folder: Path) -> None:
    names = [path.relative_to(ROOT) for path in (ROOT / "docs").rglob("*.md")]
    for name in (*names, Path("README.md"), Path("SECURITY.md"), Path("CHANGELOG.md")):
        assert (folder / name).read_text() == (ROOT / name).read_text()
        assert "<h1" in (folder / name).with_suffix(".html").read_text(), name


def test_every_link_of_every_html_page_leads_to_a_page_and_a_heading(folder: Path) -> None:
    pages = {path: Page(path.read_text()) for path in folder.rglob("*.html")}
    lost = []
    for path, page in pages.items():
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme:
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = there.is_file() and there.suffix != ".md"
            if not known or (parts.fragment and parts.fragment not in pages[there].names):
                lost.append(f"{path.relative_to(folder)}: {target}")
    assert lost == []


def test_tables_and_code_are_read_as_such(folder: Path) -> None:
    page = Page((folder / "docs" / "reference/exit-codes.html").read_text())
    assert {"table", "th", "code"} <= page.tags
    assert "pre" in Page((folder / "docs" / "how-to/upgrade.html").read_text()).tags


def test_no_page_fetches_or_runs_anything(folder: Path) -> None:
    """They are read from the disk, also where there is no network."""
    for path in folder.rglob("*.html"):
        page = Page(path.read_text())
        assert not page.tags & {"script", "iframe", "link", "object"}, path
        text = path.read_text()
        assert 'src="http' not in text, path
