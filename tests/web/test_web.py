"""The dashboard's pages: what they say, to whom, and that nothing a sender wrote comes out as
markup."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

import dmarc_milter.web
from dmarc_milter.cli.main import main
from dmarc_milter.core.dmarc.record import ReportUri
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.message import HeaderField, Headers
from dmarc_milter.core.report.failure import header_sample
from dmarc_milter.ledger.store.apply_batch import Batch
from dmarc_milter.ledger.store.decisions import bare_key
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.web import WebOptions, create_app
from dmarc_milter.web.app import RULES
from dmarc_milter.web.login import IDLE, LoginGuard, is_loopback
from dmarc_milter.web.queries import PAGE
from dmarc_milter.web.status import read
from fakes.evaluations import NOON, RECORD, evaluation
from fakes.stored import fill, week
from fakes.stores import spool_row

LATER = NOON.timestamp() + 3600
HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}"
Folder = Path


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/reports.db"


OPENED: list[Store] = []
"""The dashboard opens a store for each of its threads and keeps it as long as it runs."""


def opened(folder: Path) -> Store:
    OPENED.append(Store.open(url(folder)))
    return OPENED[-1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with a week of mail and one message full of markup."""
    place = tmp_path_factory.mktemp("web")
    store = Store.open(url(place))
    odd = evaluation("odd.example", queue_id="HOSTILE", message_id=HOSTILE)
    odd = replace(
        odd,
        verdict=replace(odd.verdict, decided_by=HOSTILE),
        envelope=replace(odd.envelope, helo=HOSTILE),
    )
    fill(place / "spool.db", store, [*week(), odd])
    store.close()
    yield place
    while OPENED:
        OPENED.pop().close()


def client(folder: Path, token: str = "") -> FlaskClient:
    options = WebOptions(lambda: opened(folder), folder / "spool.db", token, clock=lambda: LATER)
    return create_app(options).test_client()


@pytest.fixture(scope="module")
def pages(folder: Path) -> Iterator[FlaskClient]:
    with client(folder) as found:
        yield found


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/", ("211", "refused", "legit.example", "bar-refused", "198.51.100.0")),
        ("/?days=1", ("40", "today")),
        ("/?days=99999999999999", ("211",)),
        ("/domains", ("legit.example", "list.example")),
        ("/domains?failing=1", ("legit.example",)),
        ("/domains?page=2", ("None in this period",)),
        ("/domains/legit.example", ("asks for p=reject", "198.51.100.1", "v=DMARC1")),
        ("/decisions", ("4Q60000", "Older")),
        ("/decisions?key=4Q60001", ("4Q60001",)),
        ("/decisions?key=nonsense", ("Nothing found",)),
        ("/decisions?author_domain=list.example&status=pass", ("list.example",)),
        ("/decisions?author_domain=+List.Example.", ("4Q", "list.example")),
        ("/decisions?source_ip=::FFFF:198.51.100.1", ("4Q", "legit.example")),
        ("/decisions?after=nonsense&status=%27%3B--", ("Nothing found",)),
        ("/reports", ("legit.example", "due")),
        ("/health", ("messages waiting", "schema")),
    ],
)
def test_a_page_says_what_it_should(pages: FlaskClient, path: str, words: tuple[str, ...]) -> None:
    answer = pages.get(path)
    assert answer.status_code == 200
    for word in words:
        assert word in answer.text


def test_failure_reports_stand_beside_the_others(tmp_path: Path) -> None:
    """RFC 9991: what became of each is seen where one looks; nothing that it quotes."""
    one = evaluation(record=replace(RECORD, ruf=(ReportUri("ruf@legit.example"),)))
    headers = Headers((HeaderField(b"From", b" Vera <vera@legit.example>"),))
    store = Store.open(url(tmp_path))
    row = spool_row(one, header_sample(one, headers, b"k" * 32))
    store.apply(Batch("spool-f", "mx1", [(1, row)]))
    pages = client(tmp_path)
    listed = pages.get("/reports").text
    assert "Failure reports" in listed
    assert f"/reports/{one.id}" in listed
    page = pages.get(f"/reports/{one.id}")
    assert page.status_code == 200
    assert "named legit.example as its author" in page.text
    assert "vera" not in page.text
    assert "Not sent yet." in page.text
    assert "fields that it quotes are not shown" in page.text
    store.failures.drop(one.id)
    store.close()
    page = pages.get(f"/reports/{one.id}")
    assert "Not sent yet." not in page.text
    assert "fields that it quoted are not kept any more" in page.text


def test_a_key_is_looked_for_as_it_is_stored() -> None:
    """NUL, which PostgreSQL takes in no text, and other scripts stand escaped in the store."""
    assert bare_key(" <id\u00e9\0@x.example> ") == "id\\xe9\\x00@x.example"


@pytest.mark.parametrize(
    "path",
    [
        "/decisions/nothing",
        "/domains/nothing.example",
        "/reports/nothing",
        "/nowhere",
        "/static/../app.py",
    ],
)
def test_what_is_not_there_is_said_without_a_traceback(pages: FlaskClient, path: str) -> None:
    answer = pages.get(path)
    assert answer.status_code == 404
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("path", ["/decisions/%00", "/domains/a%00b", "/reports/%00"])
def test_a_name_with_nul_in_it_is_not_looked_for(folder: Path, path: str) -> None:
    """PostgreSQL takes none in a text; it would look as if the store did not answer."""

    def unasked() -> Store:
        raise AssertionError("the store was asked")

    assert (
        create_app(WebOptions(unasked, folder / "spool.db")).test_client().get(path).status_code
        == 404
    )


def test_a_decision_is_explained_like_why_does(pages: FlaskClient) -> None:
    listing = pages.get("/decisions?key=4Q60000").text
    link = re.search(r"/decisions/[0-9a-f]{32}", listing)
    assert link
    assert "What would change it" in pages.get(link[0]).text


def test_pages_of_decisions_meet_without_gap_or_repetition(pages: FlaskClient) -> None:
    """Paged by place, so that a million rows cost what fifty do."""
    seen: list[str] = []
    path: str | None = "/decisions?days=30"
    while path:
        text = pages.get(path).text
        found = re.findall(r"/decisions/([0-9a-f]{32})", text)
        assert len(found) <= PAGE
        seen += found
        older = re.search(r'rel="next" href="([^"]+)"', text)
        path = older[1].replace("&amp;", "&") if older else None
    assert len(seen) == len(set(seen)) == 211


def test_nothing_that_a_sender_wrote_is_markup(pages: FlaskClient) -> None:
    """OPS-01, I2: autoescape everywhere, and no template is evaluated twice."""
    listing = pages.get("/decisions?key=HOSTILE").text
    link = re.search(r"/decisions/[0-9a-f]{32}", listing)
    assert link
    for text in (listing, pages.get(link[0]).text):
        assert "<script>alert" not in text
        assert "&lt;script&gt;" in text
        assert "{{7*7}}" in text.replace("&#123;", "{")


def test_every_answer_forbids_what_the_page_does_not_need(pages: FlaskClient) -> None:
    for path in ("/", "/nowhere", "/static/style.css"):
        with pages.get(path) as answer:
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_no_page_has_inline_script_or_style(pages: FlaskClient) -> None:
    for path in ("/", "/domains/legit.example", "/decisions", "/health"):
        text = pages.get(path).text
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?! src=\"/static/)", text)


def test_another_host_name_is_refused_without_a_token(folder: Path) -> None:
    """DNS rebinding: a page elsewhere can make a browser ask us only under its own name."""
    assert client(folder).get("/", headers={"Host": "evil.example"}).status_code == 403
    assert (
        client(folder).get("/", headers={"Host": "127.0.0.1.evil.example:8894"}).status_code == 403
    )


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("127.0.0.1:8894", True),
        ("[::1]:8894", True),
        ("[::1]", True),
        ("10.0.0.1", False),
        ("a", False),
        ("", False),
    ],
)
def test_loopback_names_are_known(host: str, local: bool) -> None:
    assert is_loopback(host) is local


def test_with_a_token_nobody_else_looks(folder: Path) -> None:
    browser = client(folder, "0123456789abcdef")
    assert browser.get("/").headers["Location"] == "/login"
    assert browser.get("/", headers={"Authorization": "Bearer wrong"}).status_code == 302
    assert browser.post("/login", data={"token": "wrong"}).status_code == 403
    assert (
        browser.get(
            "/", headers={"Authorization": "Bearer 0123456789abcdef", "Host": "mx.example"}
        ).status_code
        == 200
    )
    cookie = browser.post("/login", data={"token": "0123456789abcdef"}).headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert browser.get("/").status_code == 200


@pytest.mark.parametrize(
    ("asked", "then"),
    [
        ("/decisions?days=90&status=fail", "/decisions?days=90&status=fail"),
        ("/domains/legit.example", "/domains/legit.example"),
        ("/", "/"),
    ],
)
def test_whoever_has_to_log_in_comes_to_the_page_that_he_asked_for(
    folder: Path, asked: str, then: str
) -> None:
    """A session that ended, in the middle of work or behind a bookmark."""
    browser = client(folder, "0123456789abcdef")
    login = browser.get(asked).headers["Location"]
    form = re.search(r'action="([^"]+)"', browser.get(login).text)
    assert form is not None
    wrong = browser.post(unescape(form[1]), data={"token": "wrong"})
    form = re.search(r'action="([^"]+)"', wrong.text)
    assert form is not None
    answer = browser.post(unescape(form[1]), data={"token": "0123456789abcdef"})
    assert (answer.status_code, answer.headers["Location"]) == (302, then)


@pytest.mark.parametrize(
    "asked",
    [
        "//evil.example/", "/\\evil.example/", "https://evil.example/", "/\t/evil.example",
        "evil.example", "javascript:alert(1)", "/\n", "/a\\b", "/é", "", "/" + "a" * 5000,
        "\\\\evil.example", "/%0d\r\nX: y", "/ /evil.example",
    ],
)  # fmt: skip
def test_a_login_leads_to_no_other_host(folder: Path, asked: str) -> None:
    browser = client(folder, "0123456789abcdef")
    given = {"token": "0123456789abcdef"}
    answer = browser.post("/login", query_string={"next": asked}, data=given)
    assert (answer.status_code, answer.headers["Location"]) == (302, "/")


@pytest.mark.parametrize("page", ["/", "/decisions", "/domains", "/reports", "/login", "/\xff"])
@pytest.mark.parametrize("query", ["a=\xff", "days=\xff&key=\xff&next=\xff", "\x80\0", "%ff", "%"])
def test_octets_that_are_no_text_are_no_error(folder: Path, page: str, query: str) -> None:
    """Whoever has no token can send them."""
    browser = client(folder, "0123456789abcdef")
    raw = {"QUERY_STRING": query, "PATH_INFO": page}
    signed_in = {"Authorization": "Bearer 0123456789abcdef"}
    for headers in ({}, signed_in):
        answer = browser.get("/", environ_overrides=raw, headers=headers)
        assert answer.status_code in ((200, 302, 404) if query.isascii() else (400,))


def test_a_session_ends_when_nobody_looks_for_long() -> None:
    """And lives as long as somebody does; tabs share it."""
    now = [0.0]
    app = Flask("web", root_path=str(Path(dmarc_milter.web.__file__).parent))
    guard = LoginGuard(app, "0123456789abcdef", lambda: now[0])
    mine, other = guard._begin(), guard._begin()
    for _ in range(5):
        now[0] += IDLE - 1
        assert guard._is_open(mine)
    assert not guard._is_open(other)
    now[0] += IDLE + 1
    assert not guard._is_open(mine)
    assert not guard._is_open("")


def test_links_keep_the_period_and_the_filter(pages: FlaskClient) -> None:
    """From page to page, and when the period changes."""
    text = unescape(pages.get("/domains?days=30&failing=1").text)
    periods = re.findall(r'<a href="([^"]*days=(?:1|7|14|30|90)[^"]*)"', text.split("Period")[1])
    assert all("failing=1" in link for link in periods[:5])
    navigation = text.split('aria-label="Pages"')[1].split("</nav>")[0]
    assert len(re.findall(r'href="[^"]*\?days=30"', navigation)) == len(
        re.findall("href=", navigation)
    )
    assert "days=" not in pages.get("/").text.split('aria-label="Pages"')[1].split("</nav>")[0]
    odd = pages.get("/?days=%22%3E%3Cb%3E").text.split('aria-label="Pages"')[1]
    assert "<b>" not in odd


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(pages: FlaskClient, method: str) -> None:
    assert pages.open("/decisions", method=method).status_code == 405


def test_a_store_that_does_not_answer_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "reports.db").mkdir()
    answer = client(tmp_path).get("/")
    assert answer.status_code == 503
    assert "The store does not answer" in answer.text


def test_no_store_yet_is_an_empty_page(tmp_path: Path) -> None:
    assert "No mail in this period" in client(tmp_path).get("/").text


@pytest.mark.parametrize(
    ("listen", "token", "words"),
    [
        ("0.0.0.0:8894", None, "set [web] token_file"),
        ("192.0.2.1:8894", "short", "fewer than 16 characters"),
        ("192.0.2.1:8894", "", "fewer than 16 characters"),
    ],
)
def test_an_open_address_needs_a_token(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], listen: str, token: str | None, words: str
) -> None:
    config = tmp_path / "c.toml"
    text = f'[store]\nurl = "{url(tmp_path)}"\n[web]\nlisten = "{listen}"\n'
    if token is not None:
        (tmp_path / "token").write_text(token)
        (tmp_path / "token").chmod(0o600)
        text += f'token_file = "{tmp_path}/token"\n'
    config.write_text(text)
    assert main(["web", "--config", str(config)]) == 2
    assert words in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "overview", "reports"),
    [
        (
            "",
            ("<strong>enforce</strong>", "p=reject is refused"),
            ("Reporting is off: [reporting] org_name and email not set.",),
        ),
        (
            '[policy]\nreject_action = "quarantine"',
            ("<strong>enforce</strong>", "is quarantined"),
            ("Reporting is off",),
        ),
        (
            "[policy]\nenforce = false",
            ("<strong>monitor</strong>", "nothing is refused"),
            ("Reporting is off",),
        ),
        (
            '[reporting]\norg_name = "R"',
            ("enforce",),
            ("Reporting is off: [reporting] email not set.",),
        ),
        ('[reporting]\norg_name = "R"\nemail = "d@mx.example"', ("enforce",), ()),
        ("[policy]\nenforce = <1>", ("cannot be used", "c.toml: is not valid TOML"), ()),
    ],
)
def test_mode_and_reporting_are_said_as_the_file_has_them_now(
    folder: Path, tmp_path: Path, text: str, overview: tuple[str, ...], reports: tuple[str, ...]
) -> None:
    config = tmp_path / "c.toml"
    options = WebOptions(
        lambda: opened(folder),
        folder / "spool.db",
        clock=lambda: LATER,
        status=lambda: read(config),
    )
    with create_app(options).test_client() as browser:
        config.write_text(text)
        for path, words in (("/", overview), ("/reports", reports)):
            said = browser.get(path).text
            assert ("Reporting is off" in said) is (path == "/reports" and bool(reports))
            for word in words:
                assert word in said


def test_a_subdomain_is_found_by_its_parent(pages: FlaskClient) -> None:
    assert Domain("legit.example").name in pages.get("/decisions?author_domain=example").text


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What this thread asked of the network, which answers nothing."""
    calls: list[str] = []
    here = threading.get_ident()

    def unanswered(name: str) -> Callable[..., None]:
        def call(*_arguments: object, **_options: object) -> None:
            if threading.get_ident() == here:  # not a server of another test, which answers late
                calls.append(name)
            raise OSError(f"{name} was called")

        return call

    for name in ("connect", "connect_ex", "sendto", "sendmsg"):
        monkeypatch.setattr(socket.socket, name, unanswered(name))
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, unanswered(name))
    return calls


def test_no_page_asks_the_dns_or_a_mail_server(folder: Path, asked: list[str]) -> None:
    """A page shows what the store and the spool hold: whoever looks must neither wait for a name
    server nor make this host ask one. Every page that a link leads to is opened."""
    with pytest.raises(OSError, match="connect was called"), socket.socket() as trial:
        trial.connect(("127.0.0.1", 25))
    assert asked == ["connect"]
    with client(folder) as pages:
        known, seen = ["/"], set()
        for path in known:
            answer = pages.get(path)
            assert answer.status_code == 200, path
            seen.add(answer.request.path)
            links = re.findall(r'href="(/(?!static/)[^"#]*)"', answer.text)
            known += [link for link in map(unescape, links) if link not in known][:40]
        opened_rules = {name for name, rule in RULES.items() if any(map(matcher(rule), seen))}
    assert opened_rules == RULES.keys()
    assert asked == ["connect"]


def matcher(rule: str) -> Callable[[str], object]:
    """Whether a path is of this rule."""
    return re.compile(re.sub("<[a-z]+>", "[^/]+", rule)).fullmatch


def test_no_markup_of_a_page_is_left_to_a_script(pages: FlaskClient) -> None:
    """Every figure is in the page as the server wrote it; the one script only copies rules."""
    text = pages.get("/?days=7").text
    assert "<canvas" not in text
    assert re.findall(r'<script src="([^"]+)"', text) == ["/static/copy.js"]
