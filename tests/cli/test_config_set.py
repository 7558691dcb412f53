"""`config set`: one value changed, everything else of the file as it was."""

import os
import stat
from pathlib import Path

import pytest

from dmarc_milter.cli.main import main
from dmarc_milter.config import load

TEXT = """\
# Ours since 2019.
[milter]   # where the MTA finds it
socket = "inet:8893@127.0.0.1"

[policy]
enforce = false            # until the audit is over
"""


RULE = '[[policy.rules]]\naction = "accept"\ndkim = ["a.example"]\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "dm.toml"
    path.write_text(TEXT)
    path.chmod(0o640)
    return path


def test_comments_order_and_mode_of_the_file_stay(file: Path) -> None:
    assert main(["config", "set", "policy.enforce", "true", "--config", str(file)]) == 0
    assert file.read_text() == TEXT.replace("enforce = false  ", "enforce = true  ")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert os.listdir(file.parent) == ["dm.toml"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("policy = { enforce = true } # c\n", "policy = { enforce = false } # c\n"),
        ("policy.enforce = true # c\n", "policy.enforce = false # c\n"),
        ('["policy"]\n"enforce" = true\n', '["policy"]\n"enforce" = false\n'),
        ("[policy]\r\nenforce = true # c\r\n", "[policy]\r\nenforce = false # c\r\n"),
        ("[policy]\nenforce = true", "[policy]\nenforce = false"),
        ("\ufeff[policy]\nenforce = true\n", "[policy]\nenforce = false\n"),
        (
            f"[policy] # ours\nenforce = true\n[dns]\ntimeout = 2.0\n{RULE}[web]\n{RULE}",
            f"[policy] # ours\nenforce = false\n[dns]\ntimeout = 2.0\n{RULE}[web]\n{RULE}",
        ),
        (
            f"{RULE}[dns]\ntimeout = 2.0\n[policy]\nreject_text = 'x'\n[web]\n",
            f"{RULE}[dns]\ntimeout = 2.0\n[policy]\nreject_text = 'x'\nenforce = false\n[web]\n",
        ),
        (
            '[[policy.rules]]\naction = "accept"\ndkim = ["a.example"]\n',
            "[policy]\nenforce = false\n"
            '[[policy.rules]]\naction = "accept"\ndkim = ["a.example"]\n',
        ),
    ],
)
def test_tables_are_changed_as_they_are_written(file: Path, before: str, after: str) -> None:
    """Inline, dotted, quoted, without a last line end, and as Windows' editors leave them."""
    file.write_text(before, newline="")
    assert main(["config", "set", "policy.enforce", "false", "--config", str(file)]) == 0
    assert file.read_bytes().decode() == after


@pytest.mark.parametrize(
    ("key", "value", "written"),
    [
        ("reporting.org_name", "Example Org", '[reporting]\norg_name = "Example Org"'),
        ("reporting.org_name", '"Example Org"', '[reporting]\norg_name = "Example Org"'),
        ("dns.nameservers", '["192.0.2.1"]', '[dns]\nnameservers = ["192.0.2.1"]'),
        ("dns.timeout", "2.5", "[dns]\ntimeout = 2.5"),
        ("policy.reject_text", "see https://example/", 'reject_text = "see https://example/"'),
        ("milter.workers", "4", "workers = 4"),
    ],
)
def test_a_key_that_is_not_there_is_added_to_its_table(
    file: Path, key: str, value: str, written: str
) -> None:
    assert main(["config", "set", key, value, "--config", str(file)]) == 0
    assert written in file.read_text()
    assert file.read_text().startswith("# Ours since 2019.")
    load(file, {})


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("policy.enfroce", "true", "did you mean enforce?"),
        ("polcy.enforce", "true", "did you mean policy?"),
        ("policy", "true", "unknown key"),
        ("policy.rules", "[]", "rules are tables of their own"),
        ("policy.enforce", "maybe", "must be true or false"),
        ("policy.enforce", "true\nx = 1", "must be true or false"),
        ("policy.quarantine_action", "hld", 'must be one of "header", "hold", "reject"'),
        ("dns.nameservers", "192.0.2.1", 'must be a list, like ["a", "b"]'),
        ("milter.workers", "9999", "out of bounds"),
        ("milter.socket", "unix:relative", "is not a socket"),
    ],
)
def test_what_the_daemon_would_refuse_is_not_written(
    file: Path, capsys: pytest.CaptureFixture[str], key: str, value: str, words: str
) -> None:
    assert main(["config", "set", key, value, "--config", str(file)]) == 2
    assert words in capsys.readouterr().err
    assert file.read_text() == TEXT


def test_a_key_that_conf_d_sets_is_refused_with_the_file_that_has_the_last_word(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (file.parent / "conf.d").mkdir()
    more = file.parent / "conf.d" / "10.toml"
    more.write_text("[policy]\nenforce = true\n")
    assert main(["config", "set", "policy.enforce", "true", "--config", str(file)]) == 2
    assert str(more) in capsys.readouterr().err
    more.unlink()
    monkeypatch.setenv("DMARC_MILTER__POLICY__ENFORCE", "true")
    assert main(["config", "set", "policy.enforce", "true", "--config", str(file)]) == 2
    assert "DMARC_MILTER__POLICY__ENFORCE" in capsys.readouterr().err
    assert file.read_text() == TEXT


def test_a_link_stays_a_link(file: Path) -> None:
    link = file.parent / "link.toml"
    link.symlink_to(file)
    assert main(["config", "set", "policy.enforce", "true", "--config", str(link)]) == 0
    assert link.is_symlink()
    assert load(file, {}).policy.enforce


def test_the_file_may_be_named_before_the_command_after_it_or_by_the_environment(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    for arguments in (
        ["--config", str(file), "config", "show"],
        ["config", "show", "--config", str(file)],
        [f"--config={file}", "config", "show"],
    ):
        assert main(arguments) == 0
        said.append(capsys.readouterr().out)
    monkeypatch.setenv("DMARC_MILTER_CONFIG", str(file))
    assert main(["config", "show"]) == 0
    said.append(capsys.readouterr().out)
    assert len(set(said)) == 1
    assert "enforce = false" in said[0]


def test_the_json_schema_is_printed_for_editors(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    assert main(["config", "json-schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert "enforce" in schema["$defs"]["PolicySection"]["properties"]
    assert schema["$defs"]["MilterSection"]["additionalProperties"] is False


def test_a_key_of_another_section_is_told_where_it_belongs(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the command line and in the file."""
    assert main(["config", "set", "policy.nameservers", "[]", "--config", str(file)]) == 2
    assert "it belongs in [dns]" in capsys.readouterr().err
    file.write_text("[policy]\nnameservers = []\n")
    assert main(["config", "show", "--config", str(file)]) == 2
    assert "it belongs in [dns]" in capsys.readouterr().err
