"""docs/pictures: what `make pictures` takes, and nothing else; each small enough for a repository
and shown in a document."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from live.pictures import PICTURES, take
from live.place import REPOSITORY

FOLDER = REPOSITORY / "docs/pictures"


def size(picture: Path) -> tuple[int, int]:
    """Width and height of a PNG."""
    head = picture.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack("!II", head[16:24])
    return width, height


def test_every_kept_picture_is_one_that_the_command_takes() -> None:
    kept = {path.stem: path for path in FOLDER.glob("*.png")}
    assert kept.keys() == {picture.name for picture in PICTURES}
    for picture in PICTURES:
        assert size(kept[picture.name]) == (picture.width, picture.height)
        assert kept[picture.name].stat().st_size < 200_000


def test_every_picture_is_shown_in_a_document() -> None:
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]
    text = "".join(page.read_text() for page in pages)
    assert [name for name, *_ in PICTURES if f"pictures/{name}.png" not in text] == []


@pytest.mark.live
def test_the_command_takes_every_picture(tmp_path: Path) -> None:
    for picture, path in zip(PICTURES, take(tmp_path), strict=True):
        assert size(path) == (picture.width, picture.height)
        assert path.stat().st_size > 20_000
