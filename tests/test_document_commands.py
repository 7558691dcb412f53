"""Every command that a document shows: ours are taken by the parser and run here against a filled
store; of others the table says why they do not, and what of them is checked.

A document with a command that is in no table fails; so does one with an option that is not ours.
The README, the tutorial and the how-tos run in their order besides, against a private Postfix and a
daemon (tests/live/test_readme.py, tests/live/test_docs.py).
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest

from dmarc_milter.cli.main import COMMANDS, _parser, main
from dmarc_milter.ledger.spool.file import SpoolFile, prepare
from dmarc_milter.ledger.store.deliveries import DeliveryState
from dmarc_milter.ledger.store.reports import ReportState
from fakes.dns_server import DnsServer
from fakes.documents import REPOSITORY, Command, commands, of_markdown
from fakes.evaluations import evaluation
from fakes.stores import spool_row

OURS = "dmarc-milter"
ELSEWHERE = {
    ("serve",): "runs until it is stopped: tests/live/test_readme.py",
    ("web",): "runs until it is stopped: tests/live/test_dashboard.py",
    ("setup",): "changes an MTA: tests/live/test_setup.py, and the tutorial in test_docs.py",
    ("ready",): "asks a running daemon: tests/cli/test_ready.py",
    ("report", "bounce"): "reads a message from an MTA: tests/live/test_bounces.py",
    ("store", "restore"): "puts a backup back: tests/ledger/test_backup.py",
}
"""Commands of ours whose options are checked here, and that run elsewhere."""
HOST = "changes or asks the whole host, which a test must not"
SHELL = "a program of the shell, with files of the reader's"
ENGINE = "needs a container engine: tests/tools and `make container-check` do what can be done"
OTHERS = {
    "systemctl": f"{HOST}; verbs and units are checked",
    "journalctl": f"{HOST}; the unit or tag is checked",
    "make": "builds or tests: that the target is there is checked",
    **dict.fromkeys(("apt", "adduser"), HOST),
    **dict.fromkeys(("postconf", "postfix"), "tests/live/test_docs.py"),
    "pipx": "fetches from a network: tests/live/test_package.py",
    **dict.fromkeys(("docker", "podman"), ENGINE),
    **dict.fromkeys(("rm", "kill", "cd", "install", "chmod", "chgrp", "sed", "editor"), SHELL),
    "sievec": "other software; the script is read by tests/live/test_docs.py",
    "openssl": "tests/live/test_docs.py runs it",
    "python": "a measurement of some minutes",
}
"""Program -> why it is not run here."""
VERBS = {"start", "stop", "restart", "reload", "enable", "disable", "status", "edit"} | {
    "daemon-reload"
}
OTHER_UNITS = {"opendkim", "opendmarc", "dovecot", "postgresql", "exim4"}
QUEUE_ID = "4Qabcd1234"
WORDS = {
    "QUEUE-ID": QUEUE_ID,
    "4Qabcd1234": QUEUE_ID,
    "MESSAGE-ID": "none@example.com",
    "ID": "abc1",
    "ADDRESS": "reports@example.com",
    "DOMAIN": "example.com",
    "NAME": "example.com",
    "TEXT": "text",
}
"""What stands for the placeholders of the documents."""
MAIL = REPOSITORY / "tests/vectors/hello.eml"
REPORT = REPOSITORY / "tests/vectors/xsd/rfc9990-appendix-b-sample.xml"
ALL = commands()


def ours(command: Command) -> tuple[str, ...] | None:
    """The words of our command line, also of one that another program is given: `docker exec`."""
    names = [Path(word).name for word in command.words]
    for place in reversed(range(len(names))):
        after = names[place + 1 : place + 2]
        if names[place] == OURS and (place == 0 or (after and after[0] in COMMANDS)):
            return command.words[place + 1 :]
    return None


def problem(command: Command) -> str:
    """Why nobody could type that; "" where all is well."""
    words = ours(command)
    if words is not None:
        return "" if is_named_only(command, words) else refused(words)
    if command.program not in OTHERS:
        return "unknown program"
    rest = [word for word in command.words[1:] if not word.startswith("-")]
    match command.program:
        case "systemctl":
            unknown = {*rest[:1]} - VERBS | {unit for unit in rest[1:] if not is_unit(unit)}
        case "make":
            unknown = set() if "-C" in command.words else set(rest) - targets()
        case "journalctl":
            pairs = zip(command.words, command.words[1:], strict=False)
            named = [value for option, value in pairs if option in ("-u", "-t")]
            unknown = {unit for unit in named if not is_unit(unit)}
        case _:
            unknown = set()
    return f"unknown: {', '.join(sorted(unknown))}" if unknown else ""


def refused(words: tuple[str, ...]) -> str:
    """What our parser says against it."""
    given = [WORDS.get(word, word) for word in words]
    said = StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            _parser(given).parse_args(given)
    except SystemExit as ended:
        return "" if ended.code == 0 else said.getvalue()
    return ""


def is_named_only(command: Command, words: tuple[str, ...]) -> bool:
    """A sentence speaks of a command, such as `dmarc-milter check`, without what it demands."""
    return command.in_text and (words == ("check",) or "are required" in refused(words))


def is_unit(name: str) -> bool:
    files = {path.name for path in (REPOSITORY / "systemd").iterdir()}
    name = re.sub(r"@[\w-]+", "", name)  # an instance: tools/instance_units.sh makes its template
    return name in OTHER_UNITS or name in files or f"{name}.service" in files


def targets() -> set[str]:
    lines = (REPOSITORY / "Makefile").read_text().split("\n")
    return {line.split(":")[0] for line in lines if line[:1].isalpha() and ":" in line} | {
        word for line in lines if line.startswith(".PHONY:") for word in line.split()[1:]
    }


def test_every_command_in_the_documents_is_one_that_can_be_typed() -> None:
    found = [(one.where, " ".join(one.words), problem(one)) for one in ALL]
    assert [one for one in found if one[2]] == []


def test_the_documents_are_read() -> None:
    """Fenced blocks, running text, manual pages and --help."""
    pages = {command.where for command in ALL}
    assert {"README.md", "tutorial.md", "CHANGELOG.md", "dmarc-milter-why.1", "--help"} <= pages
    assert {OURS, "systemctl", "postfix", "make", "openssl"} <= {one.program for one in ALL}


@pytest.mark.parametrize(
    "text",
    [
        "```sh\ndmarc-milter stats --dais 7\n```\n",
        "```sh\ndmarc-milter statistics\n```\n",
        "```sh\nfrobnicate now\n```\n",
        "```sh\ntrue_is && frobnicate now\n```\n",
        "```sh\nsystemctl reload dmarc-miller\n```\n",
        "```sh\nsystemctl reloaded dmarc-milter\n```\n",
        "```sh\nsudo make runn\n```\n",
        "```text\ninstall -d /x\ndmarc-milter statistics\n```\n",
        "Type:\n\n    [Service]\n    dmarc-milter stats --dais 7\n",
        "```sh\ndocker exec mx dmarc-milter why --limmit 5\n```\n",
        "Then `dmarc-milter store upgrad` does it.",
        "Then `.venv/bin/dmarc-milter why --nothing` does it.",
        "It is `systemctl enable --now dmarc-milter-webb`.",
    ],
)
def test_a_new_document_with_a_command_that_nobody_knows_is_found(text: str) -> None:
    assert [one for one in of_markdown(text, "new.md") if problem(one)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An installation with a store that holds refused mail, and the files that documents name."""
    folder = tmp_path_factory.mktemp("documents")
    with DnsServer({"_dmarc.example.com": {"TXT": ["v=DMARC1; p=reject"]}}) as dns:
        (folder / "dmarc-milter.toml").write_text(
            f'[store]\nurl = "sqlite:///{folder}/reports.db"\n'
            f'[dns]\nnameservers = ["{dns.nameserver}"]\ntimeout = 2.0\n'
            '[milter]\nsocket = "inet:1@127.0.0.1"\n[reporting]\nsmtp = "127.0.0.1:1"\n'
        )
        prepare(folder / "spool.db")
        spool = SpoolFile(folder / "spool.db")
        mail = [evaluation(), evaluation("example.com"), evaluation("example.com", passed=True)]
        mail[0] = replace(mail[0], envelope=replace(mail[0].envelope, queue_id=QUEUE_ID))
        spool.write([spool_row(replace(one, at=datetime.now(UTC))) for one in mail])
        spool.close()
        (folder / "tests/vectors").mkdir(parents=True)
        shutil.copy(MAIL, folder / "tests/vectors/hello.eml")
        yield folder


def here(words: tuple[str, ...], folder: Path) -> list[str]:
    """The command line with files and names of this place."""
    given: list[str] = []
    for before, word in zip(("", *words), words, strict=False):
        path = folder / Path(word).name
        if before == "--config":
            given.pop()
        elif before == "--output" or (given == ["store", "backup"]):
            path.unlink(missing_ok=True)
            given.append(str(path))
        elif Path(word).name == "opendmarc.conf":
            path.write_text("RejectFailures true\n")
            given.append(str(path))
        elif word.endswith((".eml", "Maildir")):
            given.append(str(folder / "tests/vectors/hello.eml"))
        elif word.endswith((".xml", ".gz")):
            given.append(str(REPORT))
        elif word.endswith(".toml"):
            path.write_text('[[policy.rules]]\naction = "accept"\ndkim = ["lists.example"]\n')
            given.append(str(path))
        else:
            given.append(WORDS.get(word, word))
    return [*given, "--config", str(folder / "dmarc-milter.toml")]


def to_run() -> list[tuple[str, ...]]:
    """Each once; those that only name a command, and those that run elsewhere, are left out."""
    lines = dict.fromkeys(
        words for one in ALL if (words := ours(one)) and not is_named_only(one, words)
    )
    return [
        words
        for words in lines
        if not any(words[: len(prefix)] == prefix for prefix in ELSEWHERE) and words[0] in COMMANDS
    ]


def test_every_reason_for_not_running_a_command_is_needed() -> None:
    lines = [words for one in ALL if (words := ours(one))]
    for prefix in ELSEWHERE:
        assert any(words[: len(prefix)] == prefix for words in lines), prefix
    assert set(OTHERS) - {one.program for one in ALL} == set()
    typed = {word for one in ALL if one.program == "systemctl" for word in one.words[1:]}
    assert (VERBS | OTHER_UNITS) - typed == set()


@pytest.mark.parametrize("words", to_run(), ids=" ".join)
def test_it_runs_and_gives_an_answer(
    words: tuple[str, ...], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0, "no" or "later", as docs/reference/exit-codes.md has them; never a mistake in its use."""
    config = place / "dmarc-milter.toml"
    before = config.read_text()
    monkeypatch.chdir(place)
    try:
        assert main(here(words, place)) in (0, 1, 75)
    finally:
        config.write_text(before)
        shutil.rmtree(place / "conf.d", ignore_errors=True)


def test_every_state_of_a_report_is_explained_to_whoever_misses_one() -> None:
    page = (REPOSITORY / "docs/how-to/troubleshooting.md").read_text(encoding="utf-8")
    section = page.partition("## No reports arrive at others")[2].partition("\n## ")[0]
    explained = set(re.findall(r"^\| (\w+)", section, re.MULTILINE))
    assert set(ReportState) <= explained
    assert all(f"`{state}`" in section or state in explained for state in DeliveryState)
