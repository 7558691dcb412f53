"""Commands in the documents: what a reader would copy, as words.

From fenced `sh` blocks, from lines of other blocks (`text`, indented) that begin with a program of
PROGRAMS, from `code` in running text that begins with one of INLINE, from the EXAMPLES of the
manual pages, and from `--help`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dmarc_milter.cli.actions import ACTION_EXAMPLES
from dmarc_milter.cli.main import EXAMPLES

REPOSITORY = Path(__file__).parents[2]
SHELLS = ("sh", "bash", "shell", "console")
PUNCTUATION = re.compile(r"[;&|()<>]+")
INLINE = ("dmarc-milter", "systemctl", "make", "postconf", "postfix", "journalctl", "apt", "pipx")
"""Programs whose name at the beginning of `code` in a sentence makes it a command."""

PROGRAMS = (*INLINE, *(
    "adduser", "chgrp", "chmod", "chown", "cp", "docker", "editor", "install", "ls", "openssl",
    "podman", "postalias", "postmap", "rm", "sed", "sievec", "tools", "cd", "mkdir", "ssh", "tee",
    "apt-get", "pg_restore", "psql", "createdb", "kill", "sendmail", "postqueue", "postsuper",
))  # fmt: skip
"""Programs whose name at the beginning of a line makes it a command, in a block that holds other
things too: lines of configuration, output."""


class Command(NamedTuple):
    """One simple command, without redirections. `where`: the document."""

    where: str
    words: tuple[str, ...]
    in_text: bool = False
    """In a sentence, which may only name it."""

    @property
    def program(self) -> str:
        return Path(self.words[0]).name


def documents() -> list[Path]:
    """Every page that is shipped or that a newcomer reads."""
    pages = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]
    return sorted({*pages, *(REPOSITORY / "packaging").rglob("*.md")})


def commands() -> list[Command]:
    """All of them, in order."""
    found = []
    for page in documents():
        found += of_markdown(page.read_text(encoding="utf-8"), page.name)
    for page in sorted((REPOSITORY / "docs/man").iterdir()):
        found += of_manual(page.read_text(encoding="utf-8"), page.name)
    for examples in (EXAMPLES | ACTION_EXAMPLES).values():
        for example in examples:
            found += simple_commands(f"dmarc-milter {example}", "--help")
    return found


def of_markdown(text: str, where: str) -> Iterator[Command]:
    fence = re.compile(r"^[ ]*```([\w-]*)[^\n]*\n(.*?)^[ ]*```[ ]*$", re.MULTILINE | re.DOTALL)
    for language, block in fence.findall(text):
        if language in SHELLS:
            for line in block.replace("\\\n", " ").split("\n"):
                yield from simple_commands(line.removeprefix("$ "), where)
        elif language == "text":
            yield from of_lines(block, where)
    indented = re.findall(r"(?<=\n\n)(?:    [^\n]*\n)+", fence.sub("", text))
    for block in indented:
        yield from of_lines(block, where)
    for code in re.findall(r"`([^`]+)`", fence.sub("", text)):
        words = code.split()
        if words and Path(words[0]).name in INLINE and len(words) > 1:
            for command in simple_commands(usual_form(" ".join(words)), where):
                yield command._replace(in_text=True)


def of_lines(block: str, where: str) -> Iterator[Command]:
    """The lines that are commands, of a block that has others."""
    for line in block.replace("\\\n", " ").split("\n"):
        words = [word for word in line.split() if not re.match(r"sudo$|[A-Z_]+=", word)]
        if words and Path(words[0].split("/")[0]).name in PROGRAMS:
            yield from simple_commands(re.sub(r"\$\([^)]*\)", "today", line.strip()), where)


def of_manual(text: str, where: str) -> Iterator[Command]:
    block = re.search(r"^\.SH EXAMPLES\n\.nf\n(.*?)\n\.fi$", text, re.MULTILINE | re.DOTALL)
    for line in block[1].split("\n") if block else ():
        for escape, letter in (("\\-", "-"), ("\\(aq", "'"), ("\\(dq", '"'), ("\\e", "\\")):
            line = line.replace(escape, letter)  # noqa: PLW2901 - each is one step
        yield from simple_commands(line, where)


def usual_form(synopsis: str) -> str:
    """`command A|B [--option]` is `command A`; other text is as it was."""
    return re.sub(r"\s*\|\s*\S+", "", re.sub(r"\s*\[-[^\]]*\]", "", synopsis))


def simple_commands(line: str, where: str) -> Iterator[Command]:
    """Those of a line of shell: pipes and lists taken apart; assignments, sudo and redirections
    left out."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.commenters = "#"
    lexer.whitespace_split = True
    words: list[str] = []
    skip = False
    for word in [*lexer, ";"]:
        if skip:
            skip = False
        elif PUNCTUATION.fullmatch(word) and word[0] in "<>":
            skip = True
        elif PUNCTUATION.fullmatch(word):
            if words:
                yield Command(where, tuple(words))
            words = []
        elif words or not (word == "sudo" or re.fullmatch(r"\w+=.*", word)):
            words.append(word)
