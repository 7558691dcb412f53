"""The configuration: one clear line for every mistake, and texts that cannot drift from the
code."""

import tomllib
from pathlib import Path

import msgspec
import pytest

from dmarc_milter.config import Config, ConfigError, load, parse
from dmarc_milter.config.checks import SocketAddress, authserv_id, host_and_port, socket_address
from dmarc_milter.config.core_options import options
from dmarc_milter.config.sample import sample, show
from dmarc_milter.core.authenticate import Options

ROOT = Path(__file__).parents[2]


def test_the_sample_is_every_option_at_its_default() -> None:
    """What the sample says is what the code does."""
    assert parse(sample()) == Config()
    document = tomllib.loads(sample())
    for section in msgspec.structs.fields(Config):
        keys = {
            field.name for field in msgspec.structs.fields(type(getattr(Config(), section.name)))
        } - {"rules", "identities"}
        assert keys == set(document[section.name])


def test_conf_holds_the_sample() -> None:
    """conf/dmarc-milter.toml is generated; `dmarc-milter config sample > conf/dmarc-milter.toml`
    mends this."""
    assert (ROOT / "conf" / "dmarc-milter.toml").read_text() == sample()


def test_show_prints_what_parse_reads() -> None:
    text = (
        '[policy]\nenforce = false\n[[policy.rules]]\naction = "accept"\ndkim ='
        ' ["lists.example"]\ncomment = "say \\"list\\""\n'
    )
    config = parse(text)
    assert parse(show(config)) == config


def test_show_prints_control_characters_as_toml_spells_them() -> None:
    """Nothing that acts on a terminal, and still what parse reads."""
    config = parse('[reporting]\norg_name = "a\\tb\\nc\\u001b[31m\\u007f\\u009b\u00e9"\n')
    assert parse(show(config)) == config
    assert all(char.isprintable() for line in show(config).split("\n") for char in line)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[milter]\nsocet = 'x'\n", 2, ("[milter] socet", "did you mean socket?")),
        ("[mliter]\n", 1, ("mliter", "did you mean milter?")),
        ("[milter]\nworkers = 'two'\n", 2, ("[milter] workers", "a whole number", '"two"')),
        (
            "\n\n[milter]\n# c\nworkers = -1\n",
            5,
            ("[milter] workers", "-1 is out of bounds", "(0 to 256)"),
        ),
        ("\n\nreporting = { emial = 'x' }\n", 3, ("emial", "did you mean email?")),
        ("[reporting]\n\nidentities = [{ email = 5 }]\n", 3, ("email", "text in quotes")),
        ("\nmilter.workers = 'x'\n", 2, ("workers", "a whole number")),
        ("[milter]\nsocket = 'inet:99999@127.0.0.1'\n", 2, ("is not a socket", "unix:/PATH")),
        ("[milter]\nsocket = 'unix:relative'\n", 2, ("is not a socket",)),
        (
            "[milter]\non_error = 'reject'\n",
            2,
            ("[milter] on_error", 'must be one of "tempfail", "accept"', '"reject"'),
        ),
        (
            "[authentication]\ntrusted_networks = ['10.0.0.0/8', 'nonsense']\n",
            2,
            ("trusted_networks", "nonsense"),
        ),
        ("[authentication]\nauthserv_id = 'a;b'\n", 2, ("authserv_id",)),
        (
            "[authentication]\nremove_authserv_ids = ['a.example', 'A.example']\n",
            2,
            ("is listed twice",),
        ),
        ("[dns]\nnameservers = ['dns.example']\n", 2, ("nameservers", "dns.example")),
        ("[policy]\nenforce = true\n[[policy.rules]]\naction = 'accept'\n", 4, ("no condition",)),
        (
            (
                "[[policy.rules]]\naction = 'accept'\ndkim ="
                " ['a.example']\n[[policy.rules]]\naction = 'accpt'\n"
            ),
            5,
            ("action", "must be one of", '"accpt"'),
        ),
        (
            "[[policy.rules]]\naction = 'accept'\ndkim = ['a.example']\nexpires = '2026-13-40'\n",
            4,
            ("expires",),
        ),
        ("[[policy.rules]]\naction = 'tag'\ndkim = ['a.example']\n", 1, ("needs a tag",)),
        ("[store]\nurl = 'mysql://x'\n", 2, ("postgresql://",)),
        ("[reporting]\nemail = 'no address'\n", 2, ("is not a mail address",)),
        ("[reporting]\ndkim_selector = 'a;b'\n", 2, ("dkim_selector",)),
        ("[reporting]\nemail = 'a..b@mx.example'\n", 2, ("is not a mail address",)),
        (
            "[reporting]\nbounce_address = 'dmarc@localhost'\n",
            2,
            ("is not a mail address", "full domain name"),
        ),
        ("[milter\n", 1, ("not valid TOML", "line 1")),
        ("milter = 3\n", 1, ("milter: must be a table, [milter]")),
        ("[[milter]]\nworkers = 3\n", 1, ("milter: must be a table, [milter]")),
        ('[milter]\n"wor\\n\\u001b[1mkers" = 1\n', 1, ("wor\\n\\x1b[1mkers: unknown key",)),
        ("[dns]\ntimeout = 0\n", 2, ("0 is out of bounds", "(more than 0, at most 60)")),
        ("[dns]\nnameservers = ['192.0.2.1:0']\n", 2, ("nameservers", "port 0")),
        ("[metrics]\nlisten = '9893'\n", 2, ("[metrics] listen", "'9893'", "ADDRESS:PORT")),
        ("[web]\nlisten = '8894'\n", 2, ("[web] listen", "'8894'", "ADDRESS:PORT")),
        ('[dmarc]\nsuffix_list = "/a\\u0000b"\n', 2, ("[dmarc] suffix_list", "NUL")),
        (
            '[authentication]\ntrusted_daemons = ["MSA", "\\u0000"]\n',
            2,
            ("[authentication] trusted_daemons", "NUL"),
        ),
        (
            '[[policy.rules]]\naction = "none"\ndkim = ["a.example"]\ncomment = "\\u0000"\n',
            4,
            ("[policy.rules] comment", "NUL"),
        ),
        (
            "[store]\ndecision_max_rows = 9223372036854775808\n",
            2,
            ("[store] decision_max_rows", "64 bits"),
        ),
        (
            "[limits]\nrsa_min_bits = 4096\nrsa_max_bits = 2048\n",
            2,
            ("[limits] rsa_min_bits", "4096", "rsa_max_bits", "2048"),
        ),
        ("[store]\nurl = 'sqlite:////'\n", 2, ("[store] url", "is not a store")),
        (f"[store]\nurl = 'sqlite:////{'a' * 300}/x'\n", 2, ("[store] url", "too long")),
        (
            "[reporting]\nsmtp = 'mail..example:25'\n",
            2,
            ("[reporting] smtp", "'mail..example' is not a host"),
        ),
        (
            "[milter]\nsocket = 'inet:8893@m\u00fcx..example'\n",
            2,
            ("[milter] socket", "is not a host"),
        ),
        ("[metrics]\nlisten = 'mx..example:9893'\n", 2, ("[metrics] listen", "is not a host")),
        ("a = " + "[" * 5000 + "]" * 5000, 1, ("not valid TOML", "nested")),
        ("[milter]\nworkers = " + "1" * 5000 + "\n", 1, ("not valid TOML", "digits")),
    ],
)
def test_a_mistake_is_one_line_with_file_line_and_key(
    text: str, line: int, words: tuple[str, ...]
) -> None:
    """OPS-03: refuse with one clear line."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "dm.toml")
    message = str(caught.value)
    assert "\n" not in message
    if "TOML" not in message:
        assert message.startswith(f"dm.toml:{line}: ")
    for word in words:
        assert word in message


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="config sample"):
        load(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("inet:8893@127.0.0.1", SocketAddress("inet", "127.0.0.1", 8893)),
        ("inet:8893", SocketAddress("inet", "127.0.0.1", 8893)),
        ("inet6:8893@[::1]", SocketAddress("inet6", "::1", 8893)),
        ("unix:/run/x.sock", SocketAddress("unix", path="/run/x.sock")),
        ("local:/run/x.sock", SocketAddress("unix", path="/run/x.sock")),
        ("fd:3", SocketAddress("fd", number=3)),
    ],
)
def test_sockets_are_written_as_mtas_write_them(text: str, address: SocketAddress) -> None:
    assert socket_address(text) == address


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("192.0.2.1", ("192.0.2.1", 53)),
        ("192.0.2.1:5353", ("192.0.2.1", 5353)),
        ("[2001:db8::1]:5353", ("2001:db8::1", 5353)),
        ("2001:db8::1", ("2001:db8::1", 53)),
        ("mail.example:25", ("mail.example", 25)),
    ],
)
def test_servers_take_a_port(text: str, pair: tuple[str, int]) -> None:
    assert host_and_port(text, 53) == pair


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("store", "password_file"),
        ("reporting", "smtp_password_file"),
        ("reporting", "dkim_key_file"),
        ("web", "token_file"),
    ],
)
def test_ops_03_a_secret_that_everybody_can_read_is_refused(
    tmp_path: Path, section: str, key: str
) -> None:
    """The daemon does not start with it, and a reload keeps the running configuration."""
    secret, file = tmp_path / "secret", tmp_path / "dm.toml"
    secret.write_text("0123456789abcdef0123456789abcdef")
    file.write_text(f'[{section}]\n{key} = "{secret}"\n')
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match=rf"dm.toml:2: \[{section}\] {key}: .* chmod 640"):
        load(file)
    secret.chmod(0o640)
    load(file)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://dmarc:hidden@db.example/dmarc",
        "postgresql://dmarc@db.example/dmarc?password=hidden",
    ],
)
def test_ops_03_a_password_in_the_file_itself_closes_the_file(tmp_path: Path, url: str) -> None:
    file = tmp_path / "dm.toml"
    file.write_text(f'[store]\nurl = "{url}"\n')
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="password_file") as caught:
        load(file)
    assert "hidden" not in str(caught.value)
    file.chmod(0o600)
    load(file)


def test_a_password_of_the_environment_is_no_business_of_the_file_s(tmp_path: Path) -> None:
    """Only this account and root can read a process's environment (proc(5))."""
    file = tmp_path / "dm.toml"
    file.write_text("")
    file.chmod(0o644)
    url = "postgresql://dmarc:hidden@db.example/dmarc"
    assert load(file, {"DMARC_MILTER__STORE__URL": f'"{url}"'}).store.url == url


@pytest.mark.parametrize(("budget", "spf"), [(25.0, 20.0), (120.0, 20.0), (10.0, 8.0), (5.0, 4.0)])
def test_spf_leaves_time_for_the_policy_and_the_keys(budget: float, spf: float) -> None:
    """docs/design.md, Decisions: the sender's SPF record may be slow, but the policy walk and
    aligned keys keep a part of the budget."""
    compiled = options(parse(f"[dns]\nbudget = {budget}\n"), None)
    assert (compiled.seconds, compiled.spf.seconds) == (budget, spf)


@pytest.mark.parametrize(("queries", "spf"), [(160, 112), (1000, 112), (100, 70), (40, 28)])
def test_spf_leaves_queries_for_the_policy_and_the_keys(queries: int, spf: int) -> None:
    """docs/design.md, Decisions: at least twelve are left, which a policy walk, np and the nearest
    keys need."""
    assert options(parse(f"[limits]\ndns_queries = {queries}\n"), None).spf.queries == spf


@pytest.mark.parametrize(
    ("full", "host", "name"),
    [
        ("MX.example.com.", "mx", "mx.example.com"),
        ("mx", "mx", "mx"),
        ("localhost", "mx", "mx"),
        ("localhost.localdomain", "MX", "mx"),
        ("localhost", "localhost", "localhost"),
    ],
)
def test_an_empty_authserv_id_is_the_host_name(
    monkeypatch: pytest.MonkeyPatch, full: str, host: str, name: str
) -> None:
    """docs/design.md, Configuration. The name that the loopback address has first in /etc/hosts is
    not the host's."""
    monkeypatch.setattr("socket.getfqdn", lambda: full)
    monkeypatch.setattr("socket.gethostname", lambda: host)
    assert authserv_id(parse("")) == name


def test_the_core_by_itself_judges_as_a_file_without_options() -> None:
    """A limit's default stands once, in core/budget.py: the file's and the core's are the same."""
    assert options(Config(), None) == Options()
