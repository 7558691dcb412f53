"""Print what shells need to complete `dmarc-milter`, from the command line's own parser.

python tools/completions.py packaging/completion    writes the files for bash, zsh and fish
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args, get_origin, get_type_hints

from dmarc_milter.cli.main import COMMANDS, load_command, module_of
from dmarc_milter.config import Config

FILES = ("--config", "--postfix", "--sendmail", "--main-cf", "--sendmail-mc", "--file", "--output")


class Word(NamedTuple):
    """What may stand behind a command: its options with their sentences, its own commands, and what
    its arguments may be. `values`: behind an option, or behind a key of the configuration."""

    command: str
    options: dict[str, str]
    commands: dict[str, str]
    arguments: tuple[str, ...] = ()
    values: Mapping[str, tuple[str, ...]] = MappingProxyType({})


def words() -> list[Word]:
    """Each command and each command below one ("report list"), in the order of `--help`."""
    found = []
    for name in COMMANDS:
        if module_of(name):
            parser = argparse.ArgumentParser(prog=name, add_help=False)
            load_command(name).add_arguments(parser)
            found += list(_of(parser, name))
    return found


def _of(parser: argparse.ArgumentParser, name: str) -> Iterator[Word]:
    options, commands, children = {}, {}, []
    keys = settings() if name == "config set" else {}
    arguments, values = tuple(keys), {key: known for key, known in keys.items() if known}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            commands = {choice.dest: str(choice.help) for choice in action._choices_actions}
            children = list(action.choices.items())
        elif action.option_strings and action.help != argparse.SUPPRESS:
            options[action.option_strings[-1]] = str(action.help or "")
            if action.choices:
                values[action.option_strings[-1]] = tuple(map(str, action.choices))
        elif action.choices:
            arguments += tuple(map(str, action.choices))
    yield Word(name, options | {"--help": "show what it takes"}, commands, arguments, values)
    for child, inner in children:
        yield from _of(inner, f"{name} {child}")


def settings() -> dict[str, tuple[str, ...]]:
    """SECTION.KEY of the configuration -> the values that it can have, where they are few."""
    found = {}
    for section, table in get_type_hints(Config).items():
        for key, hint in get_type_hints(table).items():
            if key in ("rules", "identities"):
                continue
            few = ("true", "false") if hint is bool else get_args(hint)
            is_literal = hint is bool or get_origin(hint) is Literal
            found[f"{section}.{key}"] = tuple(map(str, few)) if is_literal else ()
    return found


def bash(found: list[Word]) -> str:
    """For /usr/share/bash-completion/completions/dmarc-milter."""
    known = "|".join(f'"{word.command}"' for word in found)
    cases = "\n".join(
        f'        "{word.command}") words='
        f'"{" ".join([*word.commands, *word.arguments, *word.options])}" ;;'
        for word in found
    )
    values = "\n".join(
        f'        "{word.command} {name}") _dmarc_milter_one_of {_quoted(known)}; return ;;'
        for word in found
        for name, known in word.values.items()
    )
    first = " ".join([*(name for name in COMMANDS), "--config", "--version", "--help"])
    return f"""# bash completion for dmarc-milter, made by tools/completions.py
_dmarc_milter_one_of() {{  # readline escapes what has blanks (complete -o filenames)
    local one typed=${{current//\\\\/}}
    COMPREPLY=()
    for one; do [[ $one == "$typed"* ]] && COMPREPLY+=("$one"); done
}}
_dmarc_milter() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}
    local command="" at word words
    for ((at = 1; at < COMP_CWORD; at++)); do
        word=${{COMP_WORDS[at]}}
        if [[ $word == --config ]]; then ((at++)); continue; fi
        [[ $word == -* ]] && continue
        case "${{command:+$command }}$word" in
            {known}) command="${{command:+$command }}$word" ;;
        esac
    done
    case "$before" in
        {"|".join(FILES)}) COMPREPLY=($(compgen -f -- "$current")); return ;;
    esac
    case "$command $before" in
{values}
    esac
    case "$command" in
        "") words="{first}" ;;
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    if [[ ${{#COMPREPLY[@]}} -eq 0 && $current != -* ]]; then
        COMPREPLY=($(compgen -f -- "$current"))
    fi
}}
complete -o filenames -F _dmarc_milter dmarc-milter
"""


def zsh(found: list[Word]) -> str:
    """For /usr/share/zsh/vendor-completions/_dmarc-milter."""
    tops = "\n".join(f"    {_zsh(name, sentence)}" for name, sentence in COMMANDS.items())
    cases = "\n".join(f'    "{word.command}") items=({_items(word)}) ;;' for word in found)
    values = "\n".join(
        f'    "{word.command} {name}") compadd -- {_quoted(known)}; return ;;'
        for word in found
        for name, known in word.values.items()
    )
    return f"""#compdef dmarc-milter
# zsh completion for dmarc-milter, made by tools/completions.py
local command="" word at
local -a items known
known=({" ".join(f"'{word.command}'" for word in found)})
for ((at = 2; at < CURRENT; at++)); do
  word=$words[at]
  if [[ $word == --config ]]; then ((at++)); continue; fi
  [[ $word == -* ]] && continue
  (( $known[(Ie)${{command:+$command }}$word] )) && command="${{command:+$command }}$word"
done
if [[ $words[CURRENT-1] == ({"|".join(FILES)}) ]]; then
  _files
  return
fi
case "$command $words[CURRENT-1]" in
{values}
esac
case $command in
    "") items=(
{tops}
    ) ;;
{cases}
esac
_describe 'dmarc-milter' items || _files
"""


def _items(word: Word) -> str:
    arguments = dict.fromkeys(word.arguments, "")
    return " ".join(_zsh(*one) for one in (word.commands | arguments | word.options).items())


def _quoted(words: Iterable[str]) -> str:
    """For bash and zsh: a value may have blanks."""
    return " ".join(map(shlex.quote, words))


def _zsh(name: str, sentence: str) -> str:
    text = f"{name}:{sentence}".removesuffix(":").replace("'", "'\\''")
    return f"'{text}'"


def fish(found: list[Word]) -> str:
    """For /usr/share/fish/vendor_completions.d/dmarc-milter.fish."""
    lines = ["# fish completion for dmarc-milter, made by tools/completions.py"]
    names = " ".join(COMMANDS)
    for name, sentence in COMMANDS.items():
        lines.append(
            f"complete -c dmarc-milter -f -n 'not __fish_seen_subcommand_from {names}' -a {name}"
            f" -d {_fish(sentence)}"
        )
    lines.append("complete -c dmarc-milter -l config -r -F -d 'configuration'")
    for word in found:
        top, _, below = word.command.partition(" ")
        where = f"__fish_seen_subcommand_from {top}"
        if below:
            where += f"; and __fish_seen_subcommand_from {below}"
        for name, sentence in word.commands.items():
            unless = f"; and not __fish_seen_subcommand_from {' '.join(word.commands)}"
            lines.append(
                f"complete -c dmarc-milter -f -n '{where}{unless}' -a {name} -d {_fish(sentence)}"
            )
        if word.arguments:
            lines.append(
                f"complete -c dmarc-milter -f -n '{where}' -a '{' '.join(word.arguments)}'"
            )
        for key in (key for key in word.values if key not in word.options):
            behind = f"{where}; and __fish_seen_subcommand_from {key}"
            few = " ".join(word.values[key])
            lines.append(f"complete -c dmarc-milter -f -n '{behind}' -a '{few}'")
        for option, sentence in word.options.items():
            file = " -r -F" if option in FILES else ""
            if option in word.values:
                few = " ".join(map(_fish_word, word.values[option]))
                file = f" -x -a {_fish(few)}"
            lines.append(
                f"complete -c dmarc-milter -n '{where}' -l {option[2:]}{file} -d {_fish(sentence)}"
            )
    return "\n".join(lines) + "\n"


def _fish(sentence: str) -> str:
    text = sentence.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def _fish_word(value: str) -> str:
    return value if value.replace("-", "").isalnum() else f'"{value}"'


def write(folder: Path) -> None:
    """All three, by the names that shells look for."""
    folder.mkdir(parents=True, exist_ok=True)
    found = words()
    for name, make in (("dmarc-milter", bash), ("_dmarc-milter", zsh), ("dmarc-milter.fish", fish)):
        (folder / name).write_text(make(found), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
