"""`--help`: every command has examples, and they are what the parser takes."""

from __future__ import annotations

import argparse
import re
import shlex

import pytest

from dmarc_milter.cli.actions import ACTION_EXAMPLES
from dmarc_milter.cli.main import COMMANDS, EXAMPLES, _parser, load_command, main


def test_every_command_has_examples() -> None:
    assert list(EXAMPLES.keys() ^ COMMANDS.keys()) == []


def test_every_command_below_a_command_has_examples() -> None:
    below = {f"{name} {child}" for name in COMMANDS for child in children(name)}
    assert below == set(ACTION_EXAMPLES)


def children(name: str) -> list[str]:
    parser = argparse.ArgumentParser()
    load_command(name).add_arguments(parser)
    actions = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    return [child for action in actions for child in action.choices]


ALL = EXAMPLES | ACTION_EXAMPLES


@pytest.mark.parametrize("example", [each for group in ALL.values() for each in group])
def test_an_example_is_taken(example: str) -> None:
    words = shlex.split(re.split(" [<>] ", example)[0])
    assert _parser(words).parse_args(words).command == words[0]


@pytest.mark.parametrize("name", ALL)
def test_help_shows_the_sentence_and_the_examples(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert f"dmarc-milter {ALL[name][0]}" in out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), 2),
        (("nonsense",), 2),
        (("--version",), 0),
        (("report",), 2),
        (("--conf", "x", "ready"), 2),
        (("--conf=x", "ready"), 2),
        (("--vers",), 2),
        (("check", "--ip", "x"), 2),
    ],
)
def test_usage_errors_end_with_2(words: tuple[str, ...], code: int) -> None:
    """docs/reference/exit-codes.md"""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == code
