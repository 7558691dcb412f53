"""The public suffix list file: DMR-15, FLT-12; its answers: RFC 7489 3.2, RFC 9989 4.4."""

from datetime import date
from pathlib import Path

import pytest

from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.dns import suffix_list
from dmarc_milter.dns.suffix_list import (
    MAX_FILE,
    Suffixes,
    SuffixListError,
    latest_suffixes,
    load_suffixes,
)


@pytest.fixture(scope="module")
def shipped() -> Suffixes:
    return load_suffixes()


@pytest.fixture(scope="module")
def text(shipped: Suffixes) -> bytes:
    """The list itself."""
    return Path(shipped.path).read_bytes()


@pytest.mark.parametrize(
    ("name", "icann", "organization"),
    [
        ("com", True, None),
        ("co.uk", True, None),
        ("example.com", False, "example.com"),
        ("a.b.example.co.uk", False, "example.co.uk"),
        # wildcards, exceptions and the implied root of a wildcard
        ("ck", True, None),
        ("a.ck", True, None),
        ("b.a.ck", False, "b.a.ck"),
        ("www.ck", False, "www.ck"),
        ("x.www.ck", False, "www.ck"),
        ("kobe.jp", True, None),
        ("city.kobe.jp", False, "city.kobe.jp"),
        # the private section counts for organizations, not for the guard
        ("github.io", False, None),
        ("a.x.github.io", False, "x.github.io"),
        ("evil.uk.com", False, "evil.uk.com"),
        # rule *: what is not listed
        ("example", True, None),
        ("legit.example", False, "legit.example"),
        ("a.legit.example", False, "legit.example"),
        # A-labels
        ("xn--55qx5d.cn", True, None),
        ("a.xn--55qx5d.cn", False, "a.xn--55qx5d.cn"),
    ],
)
def test_answers(shipped: Suffixes, name: str, icann: bool, organization: str | None) -> None:
    """RFC 7489 3.2: the longest public suffix and one label more."""
    found = shipped.organizational_domain(Domain(name))
    assert (shipped.is_icann_suffix(Domain(name)), found and found.name) == (icann, organization)


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"\0" * 100,
        lambda _: b"com\norg\n",
        lambda text: text[: len(text) // 3],
        lambda text: text.replace(b"===END ICANN DOMAINS===", b"==="),
        lambda text: text.replace(b"===BEGIN ICANN DOMAINS===", b"==="),
        lambda text: text.replace(b"\ncom\n", b"\n"),
        lambda text: text.replace(b"\ncom\n", b"\ncom\n" + b"x" * 70 + b"\xc3\xbc.com\n"),
        lambda text: text + b" " * MAX_FILE,
    ],
    ids=["empty", "zeros", "tiny", "cut", "no end", "no beginning", "no com", "bad label", "huge"],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, text: bytes, damage: object) -> None:
    """DMR-15: never "everything is its own organization"; the message names the file."""
    assert callable(damage)
    path = tmp_path / "list.dat"
    path.write_bytes(damage(text))
    with pytest.raises(SuffixListError) as refused:
        load_suffixes(str(path))
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    """DMR-15."""
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(SuffixListError):
            load_suffixes(str(path))


def test_a_configured_file_is_the_one_that_is_used(tmp_path: Path, text: bytes) -> None:
    """Also with CRLF; what happens to the file afterwards changes nothing (FLT-12)."""
    path = tmp_path / "list.dat"
    path.write_bytes(text.replace(b"\nco.uk\n", b"\n").replace(b"\n", b"\r\n"))
    found = load_suffixes(str(path))
    path.write_bytes(b"")
    assert found.path == str(path)
    assert not found.is_icann_suffix(Domain("co.uk"))
    assert found.is_icann_suffix(Domain("com"))


def test_the_newer_list_is_the_default(
    tmp_path: Path, text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package's or Debian's; one that cannot be used does not count."""
    version = text[text.index(b"// VERSION: ") :][:22]
    debian = tmp_path / "debian.dat"
    monkeypatch.setattr(suffix_list, "DEBIAN_FILE", str(debian))
    for content, path in (
        (b"", suffix_list.PSLFILE),
        (text.replace(version, b"// VERSION: 2001-01-01"), suffix_list.PSLFILE),
    ):
        debian.write_bytes(content)
        assert load_suffixes().path == path
    debian.write_bytes(text.replace(version, b"// VERSION: 2999-01-01"))
    assert load_suffixes().path == str(debian)
    monkeypatch.setattr(suffix_list, "PSLFILE", str(tmp_path / "none"))
    debian.unlink()
    with pytest.raises(SuffixListError, match="no usable public suffix list"):
        load_suffixes()


def test_a_stale_list_warns(tmp_path: Path, text: bytes) -> None:
    """DMR-15: more than six months; without a VERSION line the file's date counts."""
    path = tmp_path / "list.dat"
    version = text[text.index(b"// VERSION: ") :][:22]
    path.write_bytes(text.replace(version, b"// VERSION: 2026-01-01"))
    found = load_suffixes(str(path))
    assert found.published == date(2026, 1, 1)
    assert found.stale(date(2026, 6, 30)) == ""
    assert "more than six months old" in found.stale(date(2026, 11, 22))
    path.write_bytes(text.replace(version, b"// VERSION: 2026-99-99"))
    assert load_suffixes(str(path)).published.year >= 2026


def test_a_file_that_breaks_later_leaves_the_list_read_before(tmp_path: Path, text: bytes) -> None:
    """FLT-12: the last good one is kept, with a warning; without one there is no start."""
    path = tmp_path / "list.dat"
    today = date(2000, 1, 1)
    with pytest.raises(SuffixListError):
        latest_suffixes(str(path), today)
    path.write_bytes(text)
    found, warning = latest_suffixes(str(path), today)
    assert warning == ""
    path.write_bytes(text[:1000])
    kept, warning = latest_suffixes(str(path), today)
    assert kept is found
    assert warning.endswith("; the list read before is kept")
    path.write_bytes(text)
    assert "more than six months old" in latest_suffixes(str(path), date(2999, 1, 1))[1]
