"""Where the configuration is named, and the commands that need none."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dmarc_milter.cli import main as command_line
from dmarc_milter.cli.main import COMMANDS, EXAMPLES, _parser, main
from dmarc_milter.config.load import CONFIG_VARIABLE
from fakes.dns_server import DnsServer

MESSAGE = "tests/vectors/hello.eml"
ROOT = Path(__file__).parents[2]
REPORT = ROOT / "tests/vectors/xsd/rfc9990-appendix-b-sample.xml"
WITHOUT = (
    f"check {ROOT / MESSAGE} --ip 192.0.2.1",
    "domain good.example",
    f"report show {REPORT}",
)
"""Commands that work where nothing is installed."""


def leaves(
    parser: argparse.ArgumentParser, words: tuple[str, ...] = ()
) -> Iterator[tuple[Any, ...]]:
    """(words, parser) of each command and subcommand that takes no further one."""
    below = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    for action in below:
        for name, command in action.choices.items():
            yield from leaves(command, (*words, name))
    if not below:
        yield words, parser


def command_lines() -> list[list[str]]:
    """Every command and subcommand with what it demands."""
    found = []
    for name in COMMANDS:
        (given,) = {shlex.split(example)[0] for example in EXAMPLES[name]}
        for words, parser in leaves(_parser([given])):
            if words[0] == name:
                found.append([*words, *demanded(parser)])
    return found


def demanded(parser: argparse.ArgumentParser) -> list[str]:
    """A value for each positional argument, and for each option that must be given."""
    words = []
    for action in parser._actions:
        value = next(iter(action.choices)) if action.choices else "1.example"
        if action.option_strings and action.required:
            words += [action.option_strings[0], str(value)]
        elif not action.option_strings and action.nargs not in ("?", "*"):
            words.append(str(value))
    for group in parser._mutually_exclusive_groups:
        if group.required:
            words += [group._group_actions[0].option_strings[0], "1.example"]
    return words


@pytest.mark.parametrize("line", command_lines(), ids=" ".join)
def test_the_configuration_is_named_before_or_after_the_command_or_in_the_environment(
    line: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    named = Path("/somewhere/else.toml")
    for words in (
        ["--config", str(named), *line],
        [f"--config={named}", *line],
        [*line, "--config", str(named)],
        [*line, f"--config={named}"],
    ):
        assert _parser(words).parse_args(words).config == named
    monkeypatch.setenv(CONFIG_VARIABLE, str(named))
    assert _parser(line).parse_args(line).config == named


def test_every_command_is_among_them() -> None:
    assert {line[0] for line in command_lines()} == set(COMMANDS)


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    zone = {"_dmarc.good.example": {"TXT": ["v=DMARC1; p=reject"]}}
    with DnsServer(zone) as server:
        monkeypatch.setenv("DMARC_MILTER__DNS__NAMESERVERS", f'["{server.nameserver}"]')
        yield


@pytest.mark.usefixtures("dns")
@pytest.mark.parametrize("line", WITHOUT)
def test_they_work_where_there_is_no_configuration(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The default place has no file: nothing is installed."""
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    monkeypatch.setattr(command_line, "DEFAULT_PATH", tmp_path / "none.toml")
    assert main(shlex.split(line)) in (0, 1)
    captured = capsys.readouterr()
    assert captured.out
    assert "configuration" not in captured.err


@pytest.mark.usefixtures("dns")
@pytest.mark.parametrize("line", WITHOUT)
@pytest.mark.parametrize("closed", ["c.toml", "conf.d/own.toml"])
def test_where_this_account_may_not_read_it_they_say_so_and_go_on(
    line: str,
    closed: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The package's file is for root and the daemon's account (mode 0640)."""
    config = tmp_path / "c.toml"
    (tmp_path / "conf.d").mkdir()
    for file in (config, tmp_path / "conf.d/own.toml"):
        file.write_text("")
    unpatched = Path.open

    def refusing(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == tmp_path / closed:
            raise PermissionError(13, "Permission denied", str(path))
        return unpatched(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refusing)
    assert main([*shlex.split(line), "--config", str(config)]) in (0, 1)
    captured = capsys.readouterr()
    assert captured.out
    assert (
        f"{tmp_path / closed}: this account may not read it: the defaults are used" in captured.err
    )


@pytest.mark.parametrize("line", WITHOUT)
def test_a_file_that_was_named_and_is_not_there_is_a_mistake(line: str, tmp_path: Path) -> None:
    assert main([*shlex.split(line), "--config", str(tmp_path / "none.toml")]) == 2
