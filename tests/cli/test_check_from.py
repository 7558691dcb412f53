"""`dmarc-milter check --from FOLDER|MBOX`: how much of an administrator's own mail has a malformed
From, and in which way."""

from __future__ import annotations

import gzip
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dmarc_milter.cli.main import main
from dmarc_milter.mta.mailboxes import MAX_HEADER, MailStore

FINE = b"Received: x\nFrom: A <a@legit.example>\nSubject: x\n\nFrom: nobody\n"
TWO = b"From: a@legit.example, b@other.example\n\nHello\n"
NONE = b"Subject: nothing else\n\nHello\n"
Survey = Callable[..., tuple[int, Any]]


@pytest.fixture
def survey(capsys: pytest.CaptureFixture[str]) -> Survey:
    """Exit code and document for what lies there."""

    def run(path: Path) -> tuple[int, Any]:
        code = main(["check", "--from", str(path), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def maildir(path: Path, **letters: bytes) -> Path:
    for name in ("cur", "new", "tmp"):
        (path / name).mkdir(parents=True, exist_ok=True)
    for name, letter in letters.items():
        (path / "cur" / f"{name}:2,S").write_bytes(letter)
    return path


def kinds(document: Any) -> dict[str, int]:
    return {each["kind"]: each["messages"] for each in document["kinds"]}


def test_a_maildir_is_read_with_its_folders(tmp_path: Path, survey: Survey) -> None:
    """cur and new, also of the folders inside; what a server keeps beside them is no message."""
    box = maildir(tmp_path / "box", one=FINE, two=TWO)
    (box / "new" / "three").write_bytes(NONE.replace(b"\n", b"\r\n"))
    maildir(box / ".Archive.2026", four=TWO)
    (box / "dovecot-uidlist").write_bytes(b"3 V1 N5\n")
    (box / "dovecot.index.log").write_bytes(bytes(range(256)))
    code, found = survey(box)
    assert (code, found["messages"], found["malformed"]) == (1, 4, 3)
    assert kinds(found) == {"several domains": 2, "no From field": 1}
    assert found["kinds"][0]["examples"] == [".Archive.2026/cur/four:2,S", "cur/two:2,S"]
    assert found["skipped"] == {"no message": 2}


def test_a_folder_of_exported_messages_is_read(tmp_path: Path, survey: Survey) -> None:
    """.eml, and numbers as MH and Cyrus write them."""
    for name, letter in {
        "a.eml": FINE,
        "B.EML": TWO,
        "17": FINE,
        "18.": NONE,
        "notes.txt": b"x\n",
    }.items():
        (tmp_path / name).write_bytes(letter)
    code, found = survey(tmp_path)
    assert (code, found["messages"], found["malformed"], found["skipped"]) == (
        1,
        4,
        2,
        {"no message": 1},
    )


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_an_mbox_is_read_message_by_message(tmp_path: Path, survey: Survey, end: bytes) -> None:
    """RFC 4155: a "From " line after an empty one starts a message; the same words inside a text do
    not."""
    line = b"From a@legit.example Thu Oct  1 10:00:00 2026\n"
    text = (
        b"From now on it is 10:00 o'clock\nFrom x at 10:00\n\nFrom here on nothing\n"
        b"\nFrom the start 10:30 we\n"
    )
    raw = b"\n".join([line + FINE + text, line + TWO, line + NONE, line + TWO])
    (tmp_path / "mbox").write_bytes(raw.replace(b"\n", end))
    code, found = survey(tmp_path / "mbox")
    assert (code, found["messages"], kinds(found)) == (
        1,
        4,
        {"several domains": 2, "no From field": 1},
    )
    assert found["kinds"][0]["examples"] == ["mbox, message 2", "mbox, message 4"]
    assert survey(tmp_path)[1]["messages"] == 4  # in a folder of such files too


def test_one_message_file_is_read_too(tmp_path: Path, survey: Survey) -> None:
    (tmp_path / "letter").write_bytes(FINE)
    assert survey(tmp_path / "letter") == (
        0,
        {"messages": 1, "malformed": 0, "kinds": [], "skipped": {}},
    )


def test_links_pipes_and_unreadable_files_are_counted_and_left(
    tmp_path: Path, survey: Survey
) -> None:
    """A folder that others can write must lead nowhere, and nothing in it may hold the program
    up."""
    box = maildir(tmp_path / "box", one=FINE)
    (tmp_path / "secret.eml").write_bytes(TWO)
    (box / "cur" / "link").symlink_to(tmp_path / "secret.eml")
    (box / "folder").symlink_to(tmp_path)
    (box / "loop").symlink_to(box)
    os.mkfifo(box / "cur" / "pipe")
    (box / "cur" / "packed").write_bytes(gzip.compress(TWO))
    code, found = survey(box)
    assert (code, found["messages"], found["malformed"]) == (0, 1, 0)
    assert found["skipped"] == {"symbolic link": 3, "no regular file": 1, "compressed": 1}


def test_a_file_that_goes_away_is_counted(tmp_path: Path) -> None:
    """Mail moves while it is looked at."""
    store = MailStore(maildir(tmp_path / "box", one=FINE, two=TWO))
    letters = store.letters()
    next(letters)
    (tmp_path / "box" / "cur" / "two:2,S").unlink()
    assert list(letters) == []
    assert store.skipped == {"unreadable": 1}


def test_only_the_header_is_read(tmp_path: Path) -> None:
    """And of that no more than a bound, however the file looks."""
    (tmp_path / "1.eml").write_bytes(FINE + b"x" * 3 * MAX_HEADER)
    (tmp_path / "2.eml").write_bytes(b"X: y\n" * MAX_HEADER)
    (tmp_path / "3.eml").write_bytes(b"x" * 3 * MAX_HEADER)
    (tmp_path / "4.eml").write_bytes(b"From x 10:00\n" + b"y" * 3 * MAX_HEADER)
    sizes = [len(each.header) for each in MailStore(tmp_path).letters()]
    assert sizes == [FINE.index(b"\n\n") + 1, MAX_HEADER, MAX_HEADER, MAX_HEADER]


def test_names_of_files_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever delivers mail chooses names; none reaches a terminal as it is."""
    box = maildir(tmp_path / "box")
    (box / "cur" / "\x1b[31m\n[bold]\u202e").write_bytes(TWO)
    (Path(os.fsdecode(os.fsencode(box / "cur" / "x") + b"\xff"))).write_bytes(TWO)
    assert main(["check", "--from", str(box)]) == 1
    text = capsys.readouterr().out
    assert "\\x1b[31m\\n[bold]\\u202e" in text
    assert re.fullmatch(r"[ -~\n\u2500]*", text), text
    assert "2 messages, 2 with a malformed From field (100.00 %)" in text


def test_at_most_three_messages_are_named_for_each_kind(tmp_path: Path, survey: Survey) -> None:
    found = survey(maildir(tmp_path / "box", **{f"m{number}": TWO for number in range(9)}))[1]
    assert found["kinds"] == [
        {
            "kind": "several domains",
            "messages": 9,
            "examples": [f"cur/m{number}:2,S" for number in range(3)],
        }
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["--from", "/nonexistent/box"],
        ["--from"],
        [],
        ["letter"],
        ["letter", "--from", "box"],
        ["--ip", "192.0.2.1"],
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A message with an address, or a place alone; exit code 2 and a word about it."""
    try:
        code = main(["check", *words])
    except SystemExit as error:
        code = int(str(error.code))
    assert code == 2
    assert capsys.readouterr().err


def test_no_mail_is_no_good_news(tmp_path: Path, survey: Survey) -> None:
    """A wrong path that happens to be a folder must not look like a clean one."""
    assert survey(tmp_path) == (1, {"messages": 0, "malformed": 0, "kinds": [], "skipped": {}})


def test_a_terminal_sees_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bar is on standard error and leaves the output alone."""
    box = maildir(tmp_path / "box", one=FINE)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["check", "--from", str(box)]) == 0
    assert capsys.readouterr().out == "1 messages, 0 with a malformed From field (0.00 %)\n"
