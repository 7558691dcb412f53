"""`dmarc-milter domain NAME`: live discovery, one exit code for each kind of answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dmarc_milter.cli.main import main
from fakes.dns_server import DnsServer

Ask = Callable[..., tuple[int, str]]
ZONE = {
    "_dmarc.good.example": {"TXT": ["v=DMARC1; p=reject; rua=mailto:agg@good.example"]},
    "good.example": {"TXT": ["v=spf1 mx -all"], "MX": [[10, "mx.good.example"]]},
    "mx.good.example": {"A": ["198.51.100.1"]},
    "_dmarc.bad.example": {"TXT": ["v=DMARC1; p=rejct; rua=mailto:a\x1b[31m@else.example"]},
    "_dmarc.slow.example": {"behaviour": "servfail"},
    "slow.example": {"behaviour": "servfail"},
    "beside.example": {"TXT": ["v=DMARC1; p=reject"]},
    "_dmarc.doubled.example.doubled.example": {"TXT": ["v=DMARC1; p=reject"]},
    "_dmarc.comma.example": {"TXT": ["v=DMARC1, p=reject"]},
    "_dmarc.refused.example": {"behaviour": "refused"},
    "_dmarc.round.example": {"CNAME": "_dmarc.round2.example"},
    "_dmarc.round2.example": {"CNAME": "_dmarc.round.example"},
    "twice.example": {"TXT": ["v=spf1 mx -all", "v=spf1 a -all"]},
}


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Ask]:
    with DnsServer(ZONE) as dns:
        config = tmp_path / "c.toml"
        config.write_text(f'[dns]\nnameservers = ["{dns.nameserver}"]\ntimeout = 10.0\n')

        def run(*words: str) -> tuple[int, str]:
            code = main(["domain", *words, "--config", str(config)])
            return code, capsys.readouterr().out

        yield run


def test_a_sound_domain_is_told_as_a_sentence(ask: Ask) -> None:
    code, out = ask("GOOD.example")
    assert code == 0
    assert out.startswith("good.example asks that mail failing DMARC be refused.")
    for words in (
        "_dmarc.good.example: v=DMARC1; p=reject",
        "1 of 10 look-ups",
        "same organization",
        "Nothing wrong was found.",
    ):
        assert words in out


def test_a_wrong_record_exits_1_and_prints_nothing_raw(ask: Ask) -> None:
    code, out = ask("bad.example")
    assert code == 1
    assert "error" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("beside.example", "beside.example has a DMARC record, which belongs at _dmarc.beside"),
        ("doubled.example", "_dmarc.doubled.example.doubled.example has a DMARC record"),
        ("comma.example", 'is "v=DMARC1, p=reject": behind v=DMARC1 a comma stands'),
    ],
)
def test_a_record_that_nobody_finds_is_named(ask: Ask, name: str, words: str) -> None:
    code, out = ask(name)
    assert (code, words in out) == (1, True), out


@pytest.mark.parametrize(
    "typed",
    [
        "user@good.example",
        "<user@good.example>",
        "mailto:user@good.example",
        "https://good.example/path?x#y",
        "http://u:p@good.example:8080",
        "good.example:25",
        " good.example. ",
    ],
)
def test_an_address_or_a_url_names_its_domain(ask: Ask, typed: str) -> None:
    assert ask(typed)[1].startswith("good.example asks")


def test_two_spf_records_are_not_none(ask: Ask) -> None:
    """RFC 7208 4.5: a permerror, which is another thing than no record."""
    _, out = ask("twice.example")
    assert "no record" not in out.partition("SPF: ")[2].partition("\n")[0]
    assert "there is no SPF record" not in out


def test_a_silent_dns_exits_75(ask: Ask) -> None:
    code, out = ask("slow.example")
    assert code == 75
    assert "cannot be known now" in out
    assert "SPF: not known now" in out, "no answer is not the answer that there is none"


def test_the_json_form_is_complete(ask: Ask) -> None:
    code, out = ask("good.example", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["policy_domain"] == document["organizational_domain"] == "good.example"
    assert document["spf"] == {
        "record": "v=spf1 mx -all",
        "lookups": 1,
        "result_for_strangers": "fail",
    }
    assert document["destinations"] == [
        {
            "kind": "rua",
            "address": "agg@good.example",
            "permission": "granted",
            "reason": "same organization",
        }
    ]
    assert {each["name"] for each in document["tags"]} >= {
        "p",
        "sp",
        "np",
        "t",
        "psd",
        "adkim",
        "aspf",
        "rua",
        "ruf",
        "fo",
    }
    assert document["findings"] == []
    assert document["worst"] == "note"


def test_what_is_no_name_is_a_usage_error(ask: Ask) -> None:
    with pytest.raises(SystemExit) as stopped:
        ask("not a name")
    for typed in ("https://", "user@", "192.0.2.1", "a@b@good.example"):
        with pytest.raises(SystemExit):
            ask(typed)
    assert stopped.value.code == 2


@pytest.mark.parametrize("name", ["_dmarc.good.example", "s._domainkey.good.example"])
def test_the_name_of_a_record_is_taken_for_its_domain(ask: Ask, name: str) -> None:
    """As it is copied from a zone file, or from what `doctor` says."""
    code, out = ask(name)
    assert code == 0
    assert out.startswith(f"{name} is where a record of good.example stands")
    assert "\ngood.example asks that mail failing DMARC be refused." in out
    assert json.loads(ask(name, "--json")[1])["domain"] == "good.example"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("slow.example", "(SERVFAIL: its name servers fail, or its DNSSEC signatures are wrong)"),
        ("refused.example", "(REFUSED: the name server that was asked does not serve this name)"),
        ("round.example", "(its aliases lead in a circle, or too far)"),
    ],
)
def test_why_the_dns_does_not_answer_is_said(ask: Ask, name: str, words: str) -> None:
    """A wrong signature, a delegation to a server that knows nothing of it, aliases in a circle."""
    code, out = ask(name)
    assert code == 75
    assert f"the DNS did not answer for _dmarc.{name} {words}" in " ".join(out.split())
