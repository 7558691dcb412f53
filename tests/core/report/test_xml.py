"""Aggregate reports satisfy RFC 9990's and RFC 7489's schemas, and ours, whatever was stored (RFC
7489 Appendix C, RFC 9990 3)."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from dmarc_milter.core.report.aggregate import Feedback, Format, Reporter
from dmarc_milter.core.report.rows import Period, Row
from dmarc_milter.core.report.xml import InvalidReport, compressed, legal, render
from dmarc_milter.core.stored import DkimFact, SpfFact, StoredPolicy, StoredReason

VECTORS = Path(__file__).parents[2] / "vectors" / "xsd"
OFFICIAL = {
    "rfc9990": etree.XMLSchema(etree.parse(VECTORS / "rfc9990-dmarc-2.0.xsd")),
    "rfc7489": etree.XMLSchema(etree.parse(VECTORS / "rfc7489-derived-no-namespace.xsd")),
}
FORMS: tuple[Format, ...] = ("rfc9990", "rfc7489")
REPORTER = Reporter("Mail & <Co>", "dmarc@mx.example", "mx.example")
PUBLISHED = StoredPolicy(
    "legit.example",
    p="reject",
    sp="quarantine",
    np="reject",
    testing=False,
    fo="1:d",
    errors=("multiple records",),
)
ROW = Row(
    source_ip="192.0.2.1",
    header_from="legit.example",
    disposition="reject",
    policy="reject",
    envelope_from="",
    envelope_to="example.com",
    auth_dkim=(
        DkimFact("fail", "legit.example", "sel", "body hash differs"),
        DkimFact("permerror", "legit.example"),
    ),
    auth_spf=SpfFact("fail", "attack.example"),
)


def feedback(*rows: Row, published: StoredPolicy = PUBLISHED, folded: int = 0) -> Feedback:
    return Feedback(
        REPORTER,
        "0123456789abcdef0123456789abcdef",
        Period(86400, 172800),
        published,
        tuple((row, 3) for row in rows),
        folded,
    )


def tree(report: Feedback, form: Format) -> etree._Element:
    """The document, accepted by the official schema, with its namespace taken off for reading."""
    root = etree.fromstring(render(report, form))
    assert OFFICIAL[form].validate(root), OFFICIAL[form].error_log
    for element in root.iter():
        element.tag = etree.QName(element).localname
    return root


@pytest.mark.parametrize("form", FORMS)
def test_a_full_report_satisfies_both_schemas(form: Format) -> None:
    root = tree(feedback(ROW, folded=7), form)
    assert root.findtext("version") == "1.0"
    assert root.findtext("report_metadata/org_name") == "Mail & <Co>"
    assert (
        root.findtext("report_metadata/date_range/begin"),
        root.findtext("report_metadata/date_range/end"),
    ) == ("86400", "172799")
    assert "7 further messages" in "".join(
        each.text or "" for each in root.iterfind("report_metadata/error")
    )
    assert root.findtext("record/row/count") == "3"
    assert root.find("record/identifiers/envelope_from") is not None


def test_rfc9990_names_discovery_testing_np_and_generator() -> None:
    root = tree(feedback(ROW), "rfc9990")
    published = {each.tag: each.text for each in root.iterfind("policy_published/*")}
    assert published == {
        "domain": "legit.example", "p": "reject", "sp": "quarantine", "np": "reject", "adkim": "r",
        "aspf": "r",
        "discovery_method": "treewalk", "fo": "1:d", "testing": "n",
    }  # fmt: skip
    assert (root.findtext("report_metadata/generator") or "").startswith("dmarc-milter ")
    assert len(root.findall("record/auth_results/dkim")) == 1  # a selector is required
    assert root.findtext("record/auth_results/spf/scope") == "mfrom"


def test_rfc7489_has_pct_and_no_namespace() -> None:
    report = feedback(ROW)
    assert b"xmlns" not in render(report, "rfc7489")
    published = {
        each.tag: each.text for each in tree(report, "rfc7489").iterfind("policy_published/*")
    }
    assert published == {
        "domain": "legit.example", "adkim": "r", "aspf": "r", "p": "reject", "sp": "quarantine",
        "pct": "100", "fo": "1:d",
    }  # fmt: skip
    assert len(tree(report, "rfc7489").findall("record/auth_results/dkim")) == 2


@pytest.mark.parametrize(
    ("form", "stored", "kind", "comment"),
    [
        (
            "rfc9990",
            StoredReason("sampled_out", "sampled_out pct=20"),
            "local_policy",
            "sampled_out pct=20",
        ),
        ("rfc7489", StoredReason("sampled_out", "pct=20"), "sampled_out", "pct=20"),
        ("rfc9990", StoredReason("policy_test_mode"), "policy_test_mode", None),
        ("rfc7489", StoredReason("policy_test_mode"), "other", "policy_test_mode"),
        ("rfc9990", StoredReason("mailing_list", "list.example"), "mailing_list", "list.example"),
        ("rfc7489", StoredReason("trusted_forwarder"), "trusted_forwarder", None),
    ],
)
def test_reasons_are_in_the_words_of_the_form(
    form: Format, stored: StoredReason, kind: str, comment: str | None
) -> None:
    """RFC 9990 3, RFC 9989 5.3."""
    row = Row(
        source_ip="2001:db8::1",
        header_from="a.example",
        disposition="none",
        policy="reject",
        reasons=(stored,),
    )
    reason = tree(feedback(row), form).find("record/row/policy_evaluated/reason")
    assert reason is not None
    assert (reason.findtext("type"), reason.findtext("comment")) == (kind, comment)


@pytest.mark.parametrize("form", FORMS)
def test_a_reason_is_never_missing_where_it_is_mandatory(form: Format) -> None:
    """RFC 9990 3.1.1.7: alignment failed, and what was done is not what was published."""
    row = Row(source_ip="192.0.2.1", header_from="a.example", disposition="none", policy="reject")
    assert (
        tree(feedback(row), form).findtext("record/row/policy_evaluated/reason/type")
        == "local_policy"
    )


@pytest.mark.parametrize(("form", "counts"), [("rfc9990", ["6"]), ("rfc7489", ["3", "3"])])
def test_rows_that_a_form_shows_alike_are_one_record(form: Format, counts: list[str]) -> None:
    """RFC 9990 Appendix A: one record for each tuple. A signature without a selector stands in the
    old form only."""
    root = tree(feedback(ROW, msgspec.structs.replace(ROW, auth_dkim=ROW.auth_dkim[:1])), form)
    assert [each.text for each in root.iterfind("record/row/count")] == counts


@pytest.mark.parametrize(("form", "word"), [("rfc9990", "pass"), ("rfc7489", "none")])
def test_a_pass_under_an_enforcing_policy(form: Format, word: str) -> None:
    row = Row(
        source_ip="192.0.2.1",
        header_from="a.example",
        disposition="pass",
        policy="reject",
        dkim_aligned=True,
    )
    assert tree(feedback(row), form).findtext("record/row/policy_evaluated/disposition") == word


def test_a_record_without_valid_p_was_evaluated_as_none() -> None:
    """RFC 9989 4.10.1."""
    assert (
        tree(
            feedback(ROW, published=StoredPolicy("a.example", p="reject", invalid_policy=True)),
            "rfc9990",
        ).findtext("policy_published/p")
        == "none"
    )


@pytest.mark.parametrize(("form", "sp", "np"), [("rfc9990", None, None), ("rfc7489", "none", None)])
def test_a_record_evaluated_as_none_has_no_policy_for_subdomains(
    form: Format, sp: str | None, np: str | None
) -> None:
    """RFC 9989 4.10.1: as if a record with p=none alone had been found; rows for subdomains have
    the disposition none."""
    made = tree(
        feedback(
            ROW,
            published=StoredPolicy(
                "a.example", p="", sp="reject", np="reject", invalid_policy=True
            ),
        ),
        form,
    )
    assert [made.findtext(f"policy_published/{tag}") for tag in ("p", "sp", "np")] == [
        "none",
        sp,
        np,
    ]


@given(text=st.text(max_size=50), form=st.sampled_from(FORMS))
def test_rpt_01_no_stored_text_can_break_the_xml(text: str, form: Format) -> None:
    """RPT-01: markup, NUL, surrogates and U+FFFE in any stored text still give a valid report."""
    row = Row(
        source_ip="192.0.2.1", header_from="x" + text, policy="none", envelope_from=text,
        reasons=(StoredReason("other", text),),
        auth_dkim=(DkimFact("fail", "d" + text, "s" + text, text),), auth_spf=SpfFact("none",
        "d" + text, reason=text),
    )  # fmt: skip
    root = tree(feedback(row, published=StoredPolicy("p.example", p="none", errors=(text,))), form)
    assert (root.findtext("record/identifiers/header_from") or "").replace("\n", "\r") == (
        "x" + legal(text)
    ).replace("\n", "\r")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stored", [None, SpfFact("none"), SpfFact("pass"), SpfFact("policy", "")])
def test_rpt_70_no_row_is_without_what_was_checked(form: Format, stored: SpfFact | None) -> None:
    """RFC 7208 2.4, 4.3: rows stored by older versions too name what SPF checked; readers drop a
    whole report for one empty element."""
    root = tree(feedback(msgspec.structs.replace(ROW, auth_spf=stored, auth_dkim=())), form)
    assert [each.text for each in root.iterfind("record/auth_results/spf/*")] == [
        "invalid",
        "mfrom",
        "none",
    ]


def test_an_invalid_report_is_not_written() -> None:
    """What our schema refuses never leaves."""
    with pytest.raises(InvalidReport):
        render(feedback(), "rfc9990")
    with pytest.raises(InvalidReport):
        render(feedback(Row(source_ip="", header_from="a.example")), "rfc9990")


def test_the_same_report_is_the_same_octets() -> None:
    """RFC 9990 3.5.2: a report sent again is the same report."""
    assert compressed(render(feedback(ROW), "rfc9990")) == compressed(
        render(feedback(ROW), "rfc9990")
    )


PACKAGE = str(Path(__file__).parents[3] / "milter")
FIRST_USE = """
import threading
from lxml import etree
from dmarc_milter.core.report import xml

begin, wrong = threading.Barrier(8), []

def first(form):
    begin.wait()
    try:
        xml.check(etree.Element("feedback"), form)
    except xml.InvalidReport:
        return
    except Exception as error:
        wrong.append(error)

threads = [threading.Thread(target=first, args=(form,)) for form in ("rfc9990", "rfc7489") * 4]
for each in threads:
    each.start()
for each in threads:
    each.join()
assert not wrong, wrong
"""


@pytest.mark.slow
def test_the_first_reports_of_a_process_may_be_written_by_several_threads() -> None:
    """Of two threads that read their first schema at once libxml2 leaves a process that can read
    none any more."""
    for _ in range(8):
        command, environment = (
            [sys.executable, "-c", FIRST_USE],
            os.environ | {"PYTHONPATH": PACKAGE},
        )
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
