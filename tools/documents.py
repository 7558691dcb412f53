"""Lay the documents out for the Debian package: the Markdown as it stands in the tree, and beside
each page the same in HTML, so that links work in both.

python tools/documents.py FOLDER
"""

from __future__ import annotations

import html
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md")
BESIDE = ("packaging/container", "docs/pictures")
"""What pages link to and is no page."""
STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 48rem; margin: 2rem auto; padding: 0 1rem; }
pre { overflow-x: auto; padding: 0.75rem; border: 1px solid #8886; border-radius: 4px; }
code { font-family: ui-monospace, monospace; font-size: 0.9em; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { border: 1px solid #8886; padding: 0.25rem 0.5rem; text-align: left; vertical-align: top; }
img { max-width: 100%; }
"""
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<nav><a href="{top}README.html">dmarc-milter</a> &middot; <a href="{all}">documents</a></nav>
<main>
{body}</main>
</body>
</html>
"""


def pages(tree: Path) -> Iterator[Path]:
    """Every page, by its name in the tree."""
    yield from (Path(name) for name in PAGES)
    yield from sorted(path.relative_to(tree) for path in (tree / "docs").rglob("*.md"))


def rendered(text: str, name: Path) -> str:
    """A page as HTML. Tags in the text are shown, never obeyed."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = reader.parse(re.sub(r"^<!--.*?-->\n", "", text, flags=re.MULTILINE | re.DOTALL))
    title = _name_headings(tokens) or name.stem
    for token in tokens:
        for child in token.children or ():
            target = child.attrGet("href")
            if isinstance(target, str):
                child.attrSet("href", to_html(target))
    body = reader.renderer.render(tokens, reader.options, {})
    top = "../" * (len(name.parts) - 1)
    all_pages = to_html(f"{top}docs/README.md")
    return PAGE.format(title=html.escape(title), style=STYLE, top=top, all=all_pages, body=body)


def to_html(target: str) -> str:
    """A link to a page, as it is for the page in HTML; any other as it is."""
    if "://" in target:
        return target
    return re.sub(r"\.md(?=#|$)", ".html", target)


def _name_headings(tokens: Sequence[Token]) -> str:
    """Give headings the names that links lead to, as the usual viewers of Markdown do; the first
    heading's text."""
    title, seen = "", dict[str, int]()
    for token, inline in pairwise(tokens):
        if token.type == "heading_open":
            title = title or re.sub(r"[`*]", "", inline.content)
            name = re.sub(r"[^\w -]", "", inline.content.lower()).replace(" ", "-")
            count = seen.get(name, 0)
            seen[name] = count + 1
            token.attrSet("id", f"{name}-{count}" if count else name)
    return title


def write(tree: Path, folder: Path) -> None:
    """All pages below `folder`, and what they link to."""
    for name in pages(tree):
        text = (tree / name).read_text(encoding="utf-8")
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        target.with_suffix(".html").write_text(rendered(text, name), encoding="utf-8")
    for beside in BESIDE:
        never = shutil.ignore_patterns("secrets")
        shutil.copytree(tree / beside, folder / beside, ignore=never, dirs_exist_ok=True)


if __name__ == "__main__":
    write(ROOT, Path(sys.argv[1]))
