"""What a start writes: a line for each thing that is worth one, and of advice only how much there
is."""

from __future__ import annotations

from pathlib import Path

from dmarc_milter.config import DEFAULT_PATH, load
from dmarc_milter.daemon.startup import startup_lines
from fakes.daemon import Tables, toml

RULE = {"action": "accept", "networks": ["0.0.0.0/0"]}


def lines(folder: Path, tables: Tables) -> list[str]:
    file = folder / "c.toml"
    file.write_text(
        toml({"store": {"url": f"sqlite:///{folder}/reports.db"}, **tables}), encoding="utf-8"
    )
    return list(startup_lines(load(file), file))


def test_the_journal_gets_no_lines_for_mail_servers(tmp_path: Path) -> None:
    """They belong into `setup` and `doctor`: a service is started more than once."""
    found = lines(tmp_path, {})
    assert [line.partition(":")[0] for line in found][:2] == ["mode", "socket"]
    assert len(found) <= 6
    assert not [line for line in found if "main.cf" in line or "sendmail" in line.lower()]


def test_advice_is_one_line_with_the_command_that_explains_it(tmp_path: Path) -> None:
    """Of this very configuration."""
    metrics = {"metrics": {"listen": "0.0.0.0:9104"}}
    doctor = f"run dmarc-milter --config {tmp_path}/c.toml doctor"
    assert f"1 finding; {doctor}" in lines(tmp_path, metrics)
    both = lines(tmp_path, {**metrics, "policy": {"rules": [RULE]}})
    assert f"2 findings; {doctor}" in both
    assert not [line for line in both if "0.0.0.0" in line]


def test_an_error_is_written_in_full(tmp_path: Path) -> None:
    found = lines(tmp_path, {"web": {"listen": "0.0.0.0:8894"}})
    assert [line for line in found if line.startswith("WARNING: 0.0.0.0:8894 can be reached")]


def test_of_the_usual_configuration_the_command_is_short(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('[metrics]\nlisten = "0.0.0.0:9104"\n')
    config = load(tmp_path / "c.toml")
    assert "1 finding; run dmarc-milter doctor" in startup_lines(config, DEFAULT_PATH)
