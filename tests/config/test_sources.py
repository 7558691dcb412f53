"""Settings from several places, and all mistakes at once (docs/reference/configuration.md)."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.config import ConfigError, load, parse
from dmarc_milter.config.load import compiled
from dmarc_milter.config.mistakes import mistakes
from dmarc_milter.config.sources import Source

RULE = '[[policy.rules]]\naction = "accept"\ndkim = ["{}.example"]\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "dmarc-milter.toml"
    path.write_text("[dns]\ntimeout = 3\nbudget = 20\n" + RULE.format("main"))
    (tmp_path / "conf.d").mkdir()
    return path


def add(file: Path, name: str, text: str) -> Path:
    path = file.parent / "conf.d" / name
    path.write_text(text)
    return path


def test_conf_d_is_read_in_the_order_of_names_after_the_main_file(file: Path) -> None:
    add(file, "20-later.toml", "[dns]\ntimeout = 5\n" + RULE.format("twenty"))
    add(file, "10-first.toml", "[dns]\ntimeout = 4\n" + RULE.format("ten"))
    add(file, "30-other.txt", "not TOML")
    add(file, ".hidden.toml", "not TOML")
    config = load(file, {})
    assert (config.dns.timeout, config.dns.budget) == (5, 20)
    assert [rule.dkim for rule in config.policy.rules] == [
        ["main.example"],
        ["ten.example"],
        ["twenty.example"],
    ]


def test_the_environment_has_the_last_word(file: Path) -> None:
    add(file, "10.toml", "[dns]\ntimeout = 4\n")
    environment = {
        "DMARC_MILTER__DNS__TIMEOUT": "6",
        "DMARC_MILTER__DNS__NAMESERVERS": '["192.0.2.1"]',
        "DMARC_MILTER__POLICY__ENFORCE": "false",
        "DMARC_MILTER_CONFIG": "/elsewhere",
        "PATH": "/bin",
    }
    config = load(file, environment)
    assert (config.dns.timeout, config.dns.nameservers) == (6, ["192.0.2.1"])
    assert not config.policy.enforce


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DMARC_MILTER__DNS__TIMEOT", "3", ("unknown key", "did you mean timeout?")),
        ("DMARC_MILTER__DSN__TIMEOUT", "3", ("unknown key", "did you mean dns?")),
        ("DMARC_MILTER__DNS", "3", ("must be a table, [dns]",)),
        ("DMARC_MILTER__", "3", ("unknown key",)),
        ("DMARC_MILTER__DNS__", "3", ("must be a table",)),
        ("DMARC_MILTER__DNS__TIMEOUT", "fast", ("the value is not TOML", "in quotes")),
        ("DMARC_MILTER__DNS__TIMEOUT", "3\n[milter]\nworkers = 1", ("the value is not TOML",)),
        ("DMARC_MILTER__DNS__TIMEOUT", "-1", ("-1 is out of bounds",)),
        ("DMARC_MILTER__POLICY__RULES", "[]", ("rules are read from files only",)),
        ("DMARC_MILTER__POLICY__RULES__0__ACTION", '"none"', ("from files only",)),
    ],
)
def test_a_variable_that_is_no_setting_is_an_error_that_names_it(
    file: Path, name: str, value: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(file, {name: value})
    (problem,) = caught.value.problems
    assert problem.startswith(f"{name}: ")
    for word in words:
        assert word in problem


def test_all_mistakes_of_all_files_are_said_at_once_each_with_its_file_and_line(
    file: Path,
) -> None:
    file.write_text('[milter]\nworkers = "two"\nsocet = 1\n[policy]\nenforce = "yes"\n')
    more = add(
        file, "a.toml", RULE.format("a") + RULE.format("b").replace('["b.example"]', '"b.example"')
    )
    more_text = '[web]\nlisten = "8894"\n'
    other = add(file, "b.toml", more_text)
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    problems = caught.value.problems
    assert [problem.split(": ")[0] for problem in problems] == [
        f"{file}:2",
        f"{file}:3",
        f"{file}:5",
        f"{more}:6",
        f"{other}:2",
    ]
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("(and 4 more mistakes)")


def test_every_file_that_is_not_toml_is_said(file: Path) -> None:
    file.write_text("[dns\n")
    add(file, "a.toml", "x = \n")
    add(file, "b.toml", "[dns]\ntimeout = 4\n")
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("[dns]\ntimeout = 3\n\n[milter]\nworkers = 1\n[dns]\nbudget = 3\n", ("line 6", "line 1")),
        ("[milter]\n[ dns ]\ntimeout = 3\n[dns]\n", ("line 4", "line 2")),
        ("[dns]\nbudget = 9\ntimeout = 3\n'timeout' = 4\n", ("line 4", "line 3")),
        ("[milter]\ndrain = 1\n[dns]\nbudget = 3\n'budget' = 3\n", ("line 5", "line 4")),
    ],
)
def test_a_table_or_key_that_is_there_twice_is_named_with_both_lines(
    text: str, lines: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "c.toml")
    for line in lines:
        assert line in str(caught.value)


@pytest.mark.parametrize("written", ["2027-01-31", '"2027-01-31"'])
def test_a_rule_expires_on_a_toml_date_or_on_one_in_quotes(written: str) -> None:
    config = parse(RULE.format("a") + f"expires = {written}\n")
    assert config.policy.rules[0].expires == "2027-01-31"


def test_a_time_is_no_date() -> None:
    with pytest.raises(ConfigError, match="text in quotes"):
        parse(RULE.format("a") + "expires = 2027-01-31T00:00:00\n")


def test_a_rule_without_an_action_is_said_where_it_stands() -> None:
    with pytest.raises(ConfigError, match=r"c.toml:4: \[policy.rules\] action: is missing"):
        parse(RULE.format("a") + '[[policy.rules]]\ndkim = ["b.example"]\n', "c.toml")


def test_a_wrong_store_url_is_not_repeated() -> None:
    """It may hold a password."""
    with pytest.raises(ConfigError) as caught:
        parse('[store]\nurl = ["postgresql://dmarc:hidden@db.example/dmarc"]\n')
    assert "hidden" not in str(caught.value)


def test_ops_03_a_password_in_a_file_of_conf_d_closes_that_file(file: Path) -> None:
    file.chmod(0o600)
    more = add(file, "db.toml", '[store]\nurl = "postgresql://dmarc:hidden@db.example/dmarc"\n')
    more.chmod(0o644)
    with pytest.raises(ConfigError, match=r"db.toml:2: \[store\] url"):
        load(file, {})
    more.chmod(0o640)
    load(file, {})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["milter", "dns", "policy", "store", "x"]),
        VALUES
        | st.dictionaries(st.sampled_from(["workers", "timeout", "rules", "url", "y"]), VALUES),
    )
)
def test_whatever_a_document_holds_is_read_or_refused_in_words(document: dict[str, object]) -> None:
    found, refused = list(mistakes(document)), False
    try:
        compiled((Source("x", "x", document),), None)
    except ConfigError:
        refused = True
    assert refused or not found
    assert all(path and text for path, text in found)
