"""Reports that are not as the schema wants them are read as far as they can be; bombs end at one
budget over all parts of a file."""

from __future__ import annotations

import base64
import bz2
import contextlib
import gzip
import io
import lzma
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.core.report import read as module
from dmarc_milter.core.report.budget import Words
from dmarc_milter.core.report.lenient_numbers import count, moment
from dmarc_milter.core.report.read import ReadReport, UnreadableReport, read

META = (
    b"<feedback><report_metadata><org_name>Sender</org_name><email>a@b.example</email><report_id>x</report_id>"
    b"<date_range><begin>1337270400</begin><end>1337356799</end></date_range></report_metadata>"
    b"<policy_published><domain>legit.example</domain><p>none</p></policy_published>"
)


def record(number: int) -> bytes:
    return (
        b"<record><row><source_ip>192.0.2.%d</source_ip><count>%d</count><policy_evaluated><disposition>none</disposition><dkim>fail</dkim>"
        b"<spf>pass</spf></policy_evaluated></row><identifiers><header_from>d%d.legit.example</header_from></identifiers><auth_results><dkim>"
        b"<domain>x%d.example</domain><result>pass</result></dkim><spf><domain>legit.example</domain><result>pass</result></spf></auth_results>"
        b"</record>" % (number % 256, number, number, number)
    )


def document(records: int = 2, first: int = 1) -> bytes:
    return META + b"".join(map(record, range(first, first + records))) + b"</feedback>"


GOOD = document()


def zipped(*entries: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for number, each in enumerate(entries):
            archive.writestr(f"r{number}.xml", each)
    return out.getvalue()


def mailed(*attachments: bytes) -> bytes:
    parts = (
        b"--b\nContent-Type: application/gzip\nContent-Transfer-Encoding: base64\n\n"
        + base64.encodebytes(each)
        for each in attachments
    )
    return (
        b"Subject: x\nContent-Type: multipart/mixed; boundary=b\n\n" + b"".join(parts) + b"--b--\n"
    )


FORWARD = b"Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: message/rfc822\n\n"


def one(data: bytes) -> ReadReport:
    [report] = read(data)
    return report


def said(report: ReadReport, word: str) -> bool:
    return not word or any(word in each for each in report.warnings)


def test_a_good_report_has_no_warnings() -> None:
    report = one(GOOD)
    assert (report.warnings, report.messages, len(report.records)) == ((), 3, 2)


# --- not as the schema wants it -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number", "word"),
    [
        ("7", 7, ""),
        ("-1", 0, "cannot be"),
        ("1e9", 10**9, "no whole number"),
        ("1000000000", 10**9, "hard to believe"),
        ("1.5e3", 1500, "no whole number"),
        ("12.0", 12, "no whole number"),
        ("+5", 5, "no whole number"),
        ("1,234", 1234, "signs between"),
        ("", 0, "there is none"),
        ("many", 0, "no number"),
        ("1e99", 0, "cannot be"),
        ("9" * 18, 0, "cannot be"),
        ("9" * 5000, 0, "no number"),
        ("\u0663", 0, "no number"),
    ],
)
def test_rpt_30_a_count_is_read_as_far_as_it_can_be(text: str, number: int, word: str) -> None:
    words = Words()
    assert count(text, words) == number
    assert word in " ".join(words.all())
    assert bool(words.all()) == bool(word)


@pytest.mark.parametrize(
    ("text", "number", "word"),
    [
        ("1337270400", 1337270400, ""),
        ("1337270400.0", 1337270400, "no whole number"),
        ("1.3372704e9", 1337270400, "no whole number"),
        ("1337270400000", 1337270400, "milliseconds"),
        ("2012-05-17T16:00:00Z", 1337270400, "no number of seconds"),
        ("2012-05-17 16:00:00", 1337270400, "no number of seconds"),
        ("2012-99-17", 0, "no number"),
        ("-5", 0, "cannot be"),
        ("999999999999999", 253402300799, "calendars"),
    ],
)
def test_rpt_31_a_moment_is_read_as_far_as_it_can_be(text: str, number: int, word: str) -> None:
    words = Words()
    assert moment(text, "begin", words) == number
    assert word in " ".join(words.all())
    assert bool(words.all()) == bool(word)


@pytest.mark.parametrize(
    ("name", "data", "word"),
    [
        ("utf-16", GOOD.decode().encode("utf-16"), "utf-16"),
        ("utf-16 big endian without a mark", GOOD.decode().encode("utf-16-be"), "utf-16-be"),
        (
            "utf-16 declared",
            '<?xml version="1.0" encoding="UTF-16"?>'.encode("utf-16-le")
            + GOOD.decode().encode("utf-16-le"),
            "utf-16-le",
        ),
        ("utf-8 that says utf-16", b'<?xml version="1.0" encoding="UTF-16"?>' + GOOD, ""),
        ("utf-32", GOOD.decode().encode("utf-32"), "utf-32"),
        (
            "latin-1",
            b'<?xml version="1.0" encoding="ISO-8859-1"?>' + GOOD.replace(b"Sender", b"S\xe9nder"),
            "iso8859-1",
        ),
        ("a codec that is none", b'<?xml version="1.0" encoding="punycode"?>' + GOOD, ""),
        ("unclosed feedback", GOOD.removesuffix(b"</feedback>"), "ends early"),
        ("unclosed metadata", GOOD.replace(b"</report_metadata>", b""), "not closed"),
        ("unclosed record", GOOD.replace(b"</record>", b"", 1), "not closed"),
        ("unclosed row", GOOD.replace(b"</row>", b""), "not closed"),
        ("unclosed results", GOOD.replace(b"</auth_results>", b""), "not closed"),
        ("closed twice", GOOD.replace(b"</row>", b"</row></row>"), "was not open"),
        ("one invalid octet", GOOD.replace(b"Sender", b"Sen\xffder"), "replaced"),
        ("a control character", GOOD.replace(b"Sender", b"Sen\x01der"), ""),
        (
            "an address in angles",
            GOOD.replace(b"a@b.example", b"Reports <a@b.example>"),
            "read as text",
        ),
        (
            "only an address in angles",
            GOOD.replace(b"a@b.example", b"<a@b.example>"),
            "read as text",
        ),
        ("a bare ampersand", GOOD.replace(b"Sender", b"Sender & Sons"), "&"),
        ("less than", GOOD.replace(b"Sender", b"1 < 2"), "read as text"),
        ("an unknown entity", GOOD.replace(b"Sender", b"Sender&nbsp;X"), "entities"),
        ("a document type", b"<!DOCTYPE feedback [<!ENTITY a 'b'>]>" + GOOD, "document type"),
        ("a wrapper around it", b"<reports>" + GOOD + b"</reports>", ""),
        ("an unclosed wrapper around it", b"<reports>" + GOOD, ""),
        (
            "no feedback around it",
            GOOD.removeprefix(b"<feedback>").removesuffix(b"</feedback>"),
            "no feedback element",
        ),
        ("a name space", GOOD.replace(b"<feedback>", b'<feedback xmlns="urn:x">'), ""),
        ("a prefix", GOOD.replace(b"<", b"<n:").replace(b"<n:/", b"</n:"), ""),
        ("upper case", GOOD.replace(b"feedback", b"FEEDBACK").replace(b"record", b"Record"), ""),
        ("text in front", b"\n \n" + GOOD, ""),
        ("something behind it", GOOD + b"\0\0\0 garbage", ""),
        ("CDATA", GOOD.replace(b"Sender", b"<![CDATA[Sender]]>"), ""),
        ("a comment", GOOD.replace(b"<record>", b"<!-- <record> --><record>"), ""),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else None,
)
def test_rpt_32_a_report_with_faults_is_read_as_far_as_it_can_be(
    name: str, data: bytes, word: str
) -> None:
    """Both records and everything of the metadata that was not itself spoilt, and a word about what
    was wrong."""
    report = one(data)
    assert (report.messages, len(report.records), report.report_id, report.policy["domain"]) == (
        3,
        2,
        "x",
        "legit.example",
    ), name
    assert (report.begin, report.email[-12:].strip("<>")) == (
        1337270400,
        report.email[-12:].strip("<>"),
    )
    assert "a@b.example" in report.email
    assert report.records[1].auth_spf == ({"domain": "legit.example", "result": "pass"},)
    assert said(report, word), report.warnings
    assert bool(report.warnings) == bool(word), report.warnings


@pytest.mark.parametrize("at", [0.2, 0.4, 0.6, 0.8, 0.95])
def test_rpt_33_a_torn_document_gives_the_records_in_front_of_the_tear(at: float) -> None:
    whole = document(50)
    report = one(whole[: len(META) + int((len(whole) - len(META)) * at)])
    assert abs(len(report.records) - 50 * at) < 2
    assert said(report, "ends early")


# --- packages -------------------------------------------------------------------------------------


def renamed(data: bytes, name: bytes) -> bytes:
    """The zip with another name of the same length in both places."""
    return data.replace(b"r0.xml", name)


def nameless(data: bytes) -> bytes:
    """The zip whose only entry has no name in either place."""
    at, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    local = data[:26] + b"\0\0" + data[28:30] + data[36:at]
    entry = data[at : at + 28] + b"\0\0" + data[at + 30 : at + 46] + data[at + 52 : end]
    return (
        local + entry + data[end : end + 12] + struct.pack("<LL", len(entry), len(local)) + b"\0\0"
    )


def with_flag(data: bytes, flag: int) -> bytes:
    at = data.index(b"PK\x01\x02")
    return data[: at + 8] + struct.pack("<H", flag) + data[at + 10 :]


def with_method(data: bytes, method: int) -> bytes:
    at = data.index(b"PK\x01\x02")
    return data[: at + 10] + struct.pack("<H", method) + data[at + 12 :]


def with_sizes(data: bytes, size: int) -> bytes:
    at = data.index(b"PK\x01\x02")
    return data[: at + 20] + struct.pack("<LL", size, size) + data[at + 28 :]


@pytest.mark.parametrize(
    ("name", "data", "word"),
    [
        ("an entry without a name", nameless(zipped(GOOD)), ""),
        ("a name of NULs", renamed(zipped(GOOD), b"\0\0\0\0\0\0"), ""),
        ("a name that leaves the folder", renamed(zipped(GOOD), b"../../"[:6]), ""),
        ("stored", zipped(GOOD, method=zipfile.ZIP_STORED), ""),
        ("bzip2 in a zip", zipped(GOOD, method=zipfile.ZIP_BZIP2), ""),
        ("sizes that lie", with_sizes(zipped(GOOD), 3), ""),
        ("sizes of zip64 without its field", with_sizes(zipped(GOOD), 0xFFFFFFFF), ""),
        ("octets in front of the zip's end", zipped(GOOD) + b"garbage behind it", ""),
        ("gzip in a zip", zipped(gzip.compress(GOOD)), ""),
        ("zip in gzip", gzip.compress(zipped(GOOD)), ""),
        ("gzip twice", gzip.compress(gzip.compress(GOOD)), ""),
        ("two members", gzip.compress(GOOD[:100]) + gzip.compress(GOOD[100:]), ""),
        ("octets behind the gzip", gzip.compress(GOOD) + b"\0\0\0garbage", "behind the end"),
        ("bzip2", bz2.compress(GOOD), ""),
        ("a mail", mailed(gzip.compress(GOOD)), ""),
        (
            "a mail of one part",
            b"Content-Transfer-Encoding: base64\n\n" + base64.encodebytes(zipped(GOOD)),
            "",
        ),
        ("a mail in a mail", FORWARD + mailed(gzip.compress(GOOD)), ""),
        ("a bad neighbour in a zip", zipped(b"<html></html>", GOOD), "another kind"),
        (
            "a bad neighbour in a mail",
            mailed(gzip.compress(GOOD), gzip.compress(GOOD)[:50]),
            "ends early",
        ),
        ("an encrypted neighbour", with_flag(zipped(b"x", GOOD), 1), "encrypted"),
        (
            "a wrong checksum",
            zipped(GOOD).replace(struct.pack("<L", zlib.crc32(GOOD)), b"\1\2\3\4"),
            "checksum",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else None,
)  # fmt: skip
def test_rpt_34_packages_are_opened(name: str, data: bytes, word: str) -> None:
    """Inside each other, with entries that lie about themselves; a neighbour that cannot be read
    costs nobody else."""
    report = one(data)
    assert (report.messages, said(report, word), bool(report.warnings)) == (
        3,
        True,
        bool(word),
    ), report.warnings


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (zipped(GOOD)[:-30], "no directory"),
        (with_flag(zipped(GOOD), 1), "encrypted"),
        (with_method(zipped(GOOD), 9), "deflate64"),
        (with_method(zipped(GOOD), 95), "xz"),
        (with_method(zipped(GOOD), 77), "method 77"),
        (zipped(GOOD, method=zipfile.ZIP_LZMA), "lzma"),
        (lzma.compress(GOOD), "xz, which is not read here"),
        (b"7z\xbc\xaf\x27\x1c" + b"\0" * 50, "7z"),
        (bz2.compress(GOOD)[:150], "ends early"),
        (gzip.compress(GOOD)[:-10], "ends early"),
        (
            zipped(GOOD).replace(b"PK\x03\x04", b"PK\x03\x05", 1)[:4] + zipped(GOOD)[4:],
            "no aggregate report",
        ),
        (
            gzip.compress(
                gzip.compress(gzip.compress(gzip.compress(gzip.compress(gzip.compress(GOOD)))))
            ),
            "too deep",
        ),
        (zipped(), "no aggregate report"),
        (b"PK\x03\x04" + b"PK\x05\x06" + b"\xff" * 18, "directory"),
        (b"PK\x03\x04" + b"PK\x06\x06" + b"\xff" * 52 + b"PK\x05\x06" + b"\xff" * 18, "directory"),
    ],
)
def test_rpt_35_what_cannot_be_opened_is_said_in_one_line(data: bytes, why: str) -> None:
    with pytest.raises(UnreadableReport, match=why) as found:
        read(data)
    assert "\n" not in str(found.value)


def overlapping(number: int) -> bytes:
    """A directory whose entries are all the same octets."""
    data = zipped(document(300))
    at, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entry = data[at:end]
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, number, number, len(entry) * number, at, 0)
    return data[:at] + entry * number + tail


HOSTILE: dict[str, Callable[[], bytes]] = {
    "61 KB of gzip": lambda: gzip.compress(META + b"<a/>" * (15 << 20)),
    "a zip of 20 documents": lambda: zipped(
        *(document(1500, number * 1500) for number in range(20))
    ),
    "5,000 entries": lambda: zipped(*[b"<feedback/>"] * 5000),
    "overlapping entries": lambda: overlapping(1000),
    "100 MB of text": lambda: gzip.compress(META.replace(b"Sender", b"x" * (100 << 20)), 1),
    "a million attributes": lambda: gzip.compress(
        META + b"<record " + b"".join(b"a%d='b' " % n for n in range(1_000_000)) + b"></record>", 1
    ),
    "a million levels": lambda: gzip.compress(META + b"<record>" * 100_000),
    "1,000 parts": lambda: mailed(*[gzip.compress(document(3))] * 1000),
    "a billion laughs": lambda: gzip.compress(
        b"<!DOCTYPE a [" + b"<!ENTITY a '&a;&a;&a;'>" * 100_000 + b"]>" + META
    ),
    "gzip in gzip": lambda: gzip.compress(gzip.compress(META + b" " * (70 << 20), 1)),
    "members": lambda: gzip.compress(b"") * 500_000,
}
MEASURE = """
import sys, time
from dmarc_milter.core.report.read import UnreadableReport, read
def grown():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) >> 10
    raise AssertionError("no VmHWM")
before = grown()
for name in sys.argv[1:]:
    start = time.process_time()
    try:
        with open(name, "rb") as file:
            read(file.read(), clock=time.process_time)
    except UnreadableReport:
        pass
    print(f"{time.process_time() - start:.2f} {grown() - before}")
"""


@pytest.mark.slow
def test_rpt_36_no_file_takes_the_machine(tmp_path: Path) -> None:
    """One budget of octets, elements, memory and seconds over all parts: less than 64 MiB and 5
    seconds, whatever is in a file."""
    for number, make in enumerate(HOSTILE.values()):
        (tmp_path / f"{number:02d}").write_bytes(make())
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3] / "milter")}
    files = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *files],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    for name, line in zip(HOSTILE, done.stdout.splitlines(), strict=True):
        seconds, megabytes = line.split()
        assert float(seconds) < 5, name
        assert int(megabytes) < 64, name


def test_what_was_read_when_the_budget_ends_is_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of elements, memory, octets, time, reports: each says so."""
    data = document(1000)
    for limit, value, word in (
        ("MAX_ELEMENTS", 5000, "elements"),
        ("MAX_KEPT", 100_000, "memory"),
        ("MAX_XML", 70_000, "unpacked"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, limit, value)
            report = one(data)
            assert 10 < len(report.records) < 1000, limit
            assert said(report, word), report.warnings
    ticks = iter(range(10**6))
    report = one(b"".join((META, *(record(n) for n in range(3000)))))
    assert len(report.records) == 3000
    report = read(
        b"".join((META, *(record(n) for n in range(3000)))), clock=lambda: float(next(ticks))
    )[0]
    assert 10 < len(report.records) < 3000
    assert said(report, "seconds")
    assert len(read(zipped(*[GOOD] * 30))) == 20
    assert said(read(zipped(*[GOOD] * 30))[-1], "more than 20 reports")


@given(
    st.binary(max_size=300),
    st.integers(0, len(GOOD)),
    st.sampled_from([lambda data: data, gzip.compress, zipped, mailed]),
)
def test_any_octets_in_a_report_are_read_or_refused(
    data: bytes, at: int, pack: Callable[[bytes], bytes]
) -> None:
    read_or_refused(pack(GOOD[:at] + data + GOOD[at:]))


@pytest.mark.parametrize("octet", [b"\0", b"\x1b", b"\x7f", b"\xc2\x9b", b"\xe2\x80\xae"])
def test_rpt_31_a_warning_quotes_nothing_that_acts_on_a_terminal(octet: bytes) -> None:
    """A number with a control character in it is named with that character escaped."""
    warnings = one(GOOD.replace(b"<begin>", b"<begin>" + octet)).warnings
    assert any("begin: " in each for each in warnings)
    assert all(each.isprintable() for each in warnings)


@given(st.integers(0, 400), st.integers(0, 255))
def test_any_damage_to_a_zip_is_read_or_refused(at: int, octet: int) -> None:
    data = bytearray(zipped(GOOD, gzip.compress(GOOD)))
    data[-at - 1 if at % 2 else at] = octet
    read_or_refused(bytes(data))


def read_or_refused(data: bytes) -> None:
    """A few reports, and warnings that can be shown."""
    with contextlib.suppress(UnreadableReport):
        reports = read(data)
        assert 1 <= len(reports) <= 20
        assert all(each.messages >= 0 for each in reports)
        assert all(warning.isprintable() for each in reports for warning in each.warnings)
