"""`--help`: every command has examples, and they are what the parser takes."""

from __future__ import annotations

import shlex

import pytest

from dmarc_milter.cli.main import COMMANDS, EXAMPLES, _parser, main


def test_every_command_has_examples() -> None:
    assert list(EXAMPLES.keys() ^ COMMANDS.keys()) == []


@pytest.mark.parametrize("example", [each for group in EXAMPLES.values() for each in group])
def test_an_example_is_taken(example: str) -> None:
    words = shlex.split(example)
    assert _parser(words).parse_args(words).command == words[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_the_sentence_and_the_examples(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert f"dmarc-milter {EXAMPLES[name][0]}" in out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), 2),
        (("nonsense",), 2),
        (("--version",), 0),
        (("report",), 2),
        (("check", "--ip", "x"), 2),
    ],
)
def test_usage_errors_end_with_2(words: tuple[str, ...], code: int) -> None:
    """docs/reference/exit-codes.md"""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == code
