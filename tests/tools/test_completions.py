"""Completion of the command line in bash, zsh and fish."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from live.place import REPOSITORY, give_up

COMPLETION = REPOSITORY / "packaging" / "completion"
ROOT = REPOSITORY / ".test" / "root"
CASES = [
    ("dmarc-milter rep", "report"),
    ("dmarc-milter report li", "list"),
    ("dmarc-milter --config x report list --sta", "--state"),
    ("dmarc-milter config se", "set"),
    ("dmarc-milter check --i", "--ip"),
    ("dmarc-milter doc", "doctor"),
    ("dmarc-milter why --disposition quar", "quarantine"),
    ("dmarc-milter report list --state qu", "queued"),
    ("dmarc-milter setup --mta send", "sendmail"),
    ("dmarc-milter why --kind mail", "mailing list"),
    ("dmarc-milter config set policy.enf", "policy.enforce"),
    ("dmarc-milter config set policy.enforce t", "true"),
]


def tool() -> ModuleType:
    path = REPOSITORY / "tools" / "completions.py"
    spec = importlib.util.spec_from_file_location("completions_tool", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def shell(program: str, *words: str) -> str:
    libraries = f"{ROOT}/usr/lib/{os.uname().machine}-linux-gnu"
    environment = {"LD_LIBRARY_PATH": libraries, "PATH": os.environ["PATH"], "HOME": str(ROOT)}
    done = subprocess.run(
        [program, *words], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def unpacked(path: str) -> str:
    give_up("" if (ROOT / path).exists() else "run tools/setup_tests.sh (make test does) first")
    return str(ROOT / path)


def test_the_files_are_what_the_parser_says(tmp_path: Path) -> None:
    """`python tools/completions.py packaging/completion` mends this."""
    tool().write(tmp_path)
    for made in tmp_path.iterdir():
        assert (COMPLETION / made.name).read_text() == made.read_text()


@pytest.mark.parametrize(("line", "word"), CASES)
def test_bash_completes(line: str, word: str) -> None:
    words = " ".join(f"'{part}'" for part in line.split(" "))
    script = (
        f"source {COMPLETION}/dmarc-milter; COMP_WORDS=({words});"
        ' COMP_CWORD=$((${#COMP_WORDS[@]}-1)); _dmarc_milter; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    assert word in shell("bash", "--norc", "-c", script).split("\n")


@pytest.mark.live
@pytest.mark.parametrize(("line", "word"), CASES)
def test_fish_completes(line: str, word: str) -> None:
    script = (
        f"set -p fish_function_path {ROOT}/usr/share/fish/functions;"
        f" source {COMPLETION}/dmarc-milter.fish; complete -C '{line}'"
    )
    found = shell(unpacked("usr/bin/fish"), "--no-config", "-c", script)
    assert word in [one.split("\t")[0] for one in found.split("\n")]


@pytest.mark.live
def test_zsh_reads_its_file() -> None:
    assert shell(unpacked("bin/zsh"), "-n", f"{COMPLETION}/_dmarc-milter") == ""
