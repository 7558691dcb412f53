"""`dmarc-milter check --from FOLDER|MBOX`: how many From fields of somebody's own mail are
malformed, and in which way."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.text import Text

from dmarc_milter.cli.main import EXIT_NO, EXIT_OK, EXIT_USAGE
from dmarc_milter.cli.terminal import console, print_json, table
from dmarc_milter.core.mail import author, message
from dmarc_milter.core.mail.message import Headers
from dmarc_milter.core.text import printable
from dmarc_milter.mta.mailboxes import MailStore

EXAMPLES = 3
"""Messages named for each kind."""
MAX_NAME = 120
CONSEQUENCE = (
    "A malformed From never passes DMARC. `[policy] malformed_from` decides what is done with it:\n"
    "by default the strictest policy of the domains in it that any reader could see."
)


@dataclass
class FromKind:
    messages: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, place: str) -> None:
        self.messages += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(
                printable(os.fsencode(place).decode("utf-8", "backslashreplace"), MAX_NAME)
            )


@dataclass
class FromSurvey:
    """`kinds`: by reason, of the fixed vocabulary of `malformed_from` in facts."""

    messages: int = 0
    kinds: dict[str, FromKind] = field(default_factory=dict)

    @property
    def malformed(self) -> int:
        return sum(kind.messages for kind in self.kinds.values())

    def ordered(self) -> list[tuple[str, FromKind]]:
        """The most frequent first."""
        return sorted(self.kinds.items(), key=lambda item: (-item[1].messages, item[0]))

    def add(self, place: str, header: bytes) -> None:
        self.messages += 1
        found = author.author(Headers(message.parse(header)[0]).values(b"from"))
        if found.malformed:
            self.kinds.setdefault(found.malformed, FromKind()).add(place)


def run(path: Path, *, as_json: bool) -> int:
    """0 when every From field is well-formed, 1 when one is not or there was no message, 2 when
    `path` cannot be read."""
    store, survey = MailStore(path), FromSurvey()
    try:
        with _progress(store) as advance:
            for letter in store.letters():
                survey.add(letter.place, letter.header)
                advance()
    except OSError as error:
        print(f"dmarc-milter: {path}: {error.strerror}", file=sys.stderr)
        return EXIT_USAGE
    if as_json:
        print_json(_document(survey, store))
    else:
        _print(survey, store)
    return EXIT_OK if survey.messages and not survey.malformed else EXIT_NO


def _document(survey: FromSurvey, store: MailStore) -> dict[str, object]:
    kinds = [
        {"kind": name, "messages": kind.messages, "examples": kind.examples}
        for name, kind in survey.ordered()
    ]
    return {
        "messages": survey.messages,
        "malformed": survey.malformed,
        "kinds": kinds,
        "skipped": dict(store.skipped),
    }


def _print(survey: FromSurvey, store: MailStore) -> None:
    screen = console()
    share = f" ({100 * survey.malformed / survey.messages:.2f} %)" if survey.messages else ""
    screen.print(
        Text(f"{survey.messages} messages, {survey.malformed} with a malformed From field{share}")
    )
    if survey.kinds:
        rows = [
            (str(kind.messages), name, "; ".join(kind.examples)) for name, kind in survey.ordered()
        ]
        screen.print(table({"messages": "right", "kind": "left", "for example": "left"}, rows))
        screen.print(Text(CONSEQUENCE))
    if store.skipped:
        counts = ", ".join(f"{number} {reason}" for reason, number in sorted(store.skipped.items()))
        screen.print(Text(f"skipped: {counts}"))


@contextmanager
def _progress(store: MailStore) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, nothing elsewhere. Of a folder nobody knows beforehand how much there
    is."""
    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    total = store.path.stat().st_size if store.path.is_file() else None
    columns = (TextColumn("reading"), BarColumn(), TextColumn("{task.fields[messages]} messages"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task, read = bar.add_task("", total=total, messages=0), 0

        def advance() -> None:
            nonlocal read
            read += 1
            bar.update(task, completed=store.octets if total else None, messages=read)

        yield advance
