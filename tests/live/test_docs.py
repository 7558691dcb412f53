"""docs/: every command runs against a private Postfix and the daemon, every configuration is
accepted, every link leads somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sievelib.parser import Parser

from dmarc_milter.cli.main import COMMANDS
from dmarc_milter.config import ConfigError, parse
from dmarc_milter.config.reference import reference
from fakes.daemon import Daemon
from fakes.dns_server import DnsServer
from live.place import REPOSITORY, answers, eventually, private_folder
from live.postfix import Postfix, private_postfix
from live.scenarios import SENDER, STRANGER, letter, signed, zone
from live.smtp import Client

DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
HOWTOS = sorted((DOCS / "how-to").glob("*.md"))
MAN = sorted(path.name for path in (DOCS / "man").iterdir())


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """(language, text) of each fenced block, in order."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [each for each in found if each[0] in languages]


def name(page: Path) -> str:
    return str(page.relative_to(DOCS))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_configuration_shown_is_accepted(page: Path) -> None:
    refused = []
    for _, text in blocks(page, "toml"):
        try:
            parse(text)
        except ConfigError as error:
            refused.append(str(error))
    assert refused == []


@pytest.mark.parametrize("page", [*PAGES, REPOSITORY / "README.md"], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target


def test_the_reference_page_is_what_the_code_says() -> None:
    """`dmarc-milter config reference > docs/reference/configuration.md` mends this."""
    assert (DOCS / "reference/configuration.md").read_text() == reference()


def test_the_manual_pages_are_what_the_code_says(tmp_path: Path) -> None:
    """`python tools/man_pages.py docs/man` mends this."""
    command = [sys.executable, str(REPOSITORY / "tools/man_pages.py"), str(tmp_path)]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY / "milter")})
    assert sorted(path.name for path in tmp_path.iterdir()) == MAN
    for page in MAN:
        assert (tmp_path / page).read_text() == (DOCS / "man" / page).read_text()


def test_every_command_has_a_manual_page_and_each_page_names_only_pages_that_exist() -> None:
    """From dmarc-milter(8) to each command's, and from there on."""
    assert {f"dmarc-milter-{command}.1" for command in COMMANDS} < set(MAN)
    for page in MAN:
        text = (DOCS / "man" / page).read_text().replace("\\-", "-")
        named = {".".join(found) for found in re.findall(r"(dmarc-milter[\w.-]*) ?\((\d)\)", text)}
        assert named <= set(MAN), page
        assert named - {page}, page
    overview = (DOCS / "man/dmarc-milter.8").read_text().replace("\\-", "-")
    assert [name for name in COMMANDS if f".BR dmarc-milter-{name} (1)" not in overview] == []


@pytest.mark.parametrize("page", MAN)
def test_everything_named_in_a_manual_page_is_explained(page: str) -> None:
    """No option without a sentence, and none that is hidden from `--help`."""
    text = (DOCS / "man" / page).read_text()
    assert "SUPPRESS" not in text
    assert "\n\n" not in text


@dataclass
class World:
    """A shell in which `dmarc-milter`, `systemctl`, `postfix` and `postconf` mean the private
    ones."""

    folder: Path
    postfix: Postfix
    daemon: Daemon
    nameserver: str

    def __post_init__(self) -> None:
        python, config = sys.executable, self.daemon.config
        private = (
            f'case "$1" in setup) set -- "$@" --main-cf {self.postfix.folder}/etc/main.cf;; esac'
        )
        self._shim(
            "dmarc-milter", f'{private}\nexec {python} -m dmarc_milter "$@" --config {config}'
        )
        self._shim("systemctl", f'echo "$1" >> {self.folder}/systemctl')
        for each in ("postfix", "postconf"):
            self._shim(each, f'exec {self.postfix.command(each)} "$@"')

    def _shim(self, program: str, text: str) -> None:
        path = self.folder / "bin" / program
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\nset -eu\n{text}\n")
        path.chmod(0o755)

    def run(self, block: str, allowed: tuple[int, ...] = (0,)) -> str:
        """The output of each line of a block; every one must end as allowed."""
        path = f"{self.folder}/bin:{os.environ['PATH']}"
        environment = os.environ | {
            "PATH": path,
            "PYTHONPATH": str(REPOSITORY / "milter"),
            **self.postfix.environment,
        }
        output = ""
        for line in block.strip().split("\n"):
            done = subprocess.run(
                ["sh", "-c", line],
                check=False,
                cwd=self.folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=90,
            )
            assert done.returncode in allowed, f"{line}\n{done.stdout}{done.stderr}"
            output += done.stdout
        return output

    def configure(self, text: str) -> None:
        """Put a block of the page into the daemon's file, over what is needed to live here."""
        tables: dict[str, dict[str, Any]] = tomllib.loads(text)
        self.daemon.configure({"dns": {"nameservers": [self.nameserver], "timeout": 2.0}, **tables})

    def restart(self) -> None:
        """What `systemctl restart` would do."""
        self.daemon.stop()
        self.daemon.log.unlink(missing_ok=True)
        self.daemon.start()

    def send(self, author: str, client: Client = STRANGER, *, sign: bool = False) -> int:
        message = letter(author)
        return self.postfix.send(signed(message) if sign else message, "reader", client=client).code


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with DnsServer(zone()) as dns, private_postfix() as postfix, private_folder("docs") as folder:
        daemon = Daemon(folder, {"dns": {"nameservers": [dns.nameserver], "timeout": 2.0}})
        with daemon:
            yield World(folder, postfix, daemon, dns.nameserver)


@pytest.mark.live
def test_the_tutorial_leads_from_nothing_to_enforcing_and_back(world: World) -> None:
    """In the order of the page; after each step what the page promises is so."""
    main_cf = world.postfix.folder / "etc/main.cf"
    before = main_cf.read_bytes()
    page = iter(blocks(DOCS / "tutorial.md", "toml", "sh"))
    monitor, check, attach, ask, why, enforce, reload, report, preview, undo = (
        text for _, text in page
    )
    world.configure(monitor)
    assert "monitor mode" in world.run(check)
    world.restart()
    assert answers(world.daemon.port)
    assert f"inet:127.0.0.1:{world.daemon.port}" in world.run(attach)
    eventually(
        lambda: (
            world.send("Alice <alice@sender.example>", SENDER, sign=True) == 250 and marked(world)
        ),
        what="mail is marked",
    )
    assert world.send("Boss <boss@reject.example>") == 250  # monitor mode
    world.run("dmarc-milter store drain")
    assert "reject.example" in world.run(ask)
    assert "reject.example" in world.run(why)
    world.configure(enforce)
    world.run(reload)
    world.restart()
    eventually(lambda: world.send("Boss <boss@reject.example>") == 550, what="a spoof is refused")
    assert world.send("Boss <boss@quarantine.example>") == 250
    eventually(
        lambda: any(b"X-DMARC-Quarantine: yes" in each for each in world.postfix.mailbox("reader")),
        what="quarantined",
    )
    world.configure(report)
    world.run(preview)
    assert (world.folder / "systemctl").read_text().split() == ["restart", "reload", "reload"]
    world.run(undo)
    assert main_cf.read_bytes() == before
    eventually(lambda: world.send("Boss <boss@reject.example>") == 250, what="mail flows as before")


def marked(world: World) -> bool:
    return any(b"Authentication-Results:" in each for each in world.postfix.mailbox("reader"))


@pytest.mark.live
@pytest.mark.parametrize("page", HOWTOS, ids=name)
def test_every_command_of_a_how_to_runs(world: World, page: Path) -> None:
    """A query may answer no (exit 1) where its subject is not in this small world."""
    for _, text in blocks(page, "sh"):
        world.run(text, allowed=(0, 1))


def test_the_sieve_script_is_sieve() -> None:
    """By an independent parser of RFC 5228."""
    ((_, script),) = blocks(DOCS / "how-to/junk-folder.md", "sieve")
    parser = Parser()
    assert parser.parse(script), parser.error
