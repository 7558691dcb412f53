"""`dmarc-milter setup`: what it says and writes, for an MTA's files in a private folder."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from dmarc_milter.cli.main import main
from dmarc_milter.config import instance, load
from dmarc_milter.config.checks import socket_address
from dmarc_milter.config.schema_policy import Authentication
from dmarc_milter.core.check_finding import Finding
from dmarc_milter.mta import postfix, setup_lines
from dmarc_milter.mta.postfix_review import review

OURS = "{ inet:127.0.0.1:8893, default_action=tempfail, content_timeout=300s }"
MAIN = (
    "# mine\nmyhostname = mx.example\nmynetworks = 127.0.0.0/8 [::1]/128\nsmtpd_milters ="
    " inet:127.0.0.1:8891\n"
)
MASTER = """\
smtp inet n - y - - smtpd
submission inet n - y - - smtpd
  -o milter_macro_daemon_name=ORIGINATING
"""


@pytest.fixture(autouse=True)
def _its_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit of this host names the configuration: tests/cli/test_units.py looks at that."""
    monkeypatch.setattr(instance, "unit_of", lambda _: "dmarc-milter")


class Place:
    """A configuration and an MTA's files."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.config, self.main, self.mc = (
            folder / "dmarc-milter.toml",
            folder / "main.cf",
            folder / "sendmail.mc",
        )
        self._capsys = capsys
        self.config.write_text("")
        self.main.write_bytes(MAIN.encode() + b"odd = \xff\r\n")
        (folder / "master.cf").write_text(MASTER)
        self.root = folder / "root"
        self.mc.write_text("OSTYPE(`linux')dnl\nMAILER(`smtp')dnl\n")

    def run(self, *arguments: str, mta: str = "postfix") -> tuple[int, str]:
        """(exit code, everything printed)"""
        files = (
            "--config",
            str(self.config),
            "--main-cf",
            str(self.main),
            "--sendmail-mc",
            str(self.mc),
            "--root",
            str(self.root),
        )
        code = main(["setup", "--mta", mta, *files, *arguments])
        said = self._capsys.readouterr()
        return code, said.out + said.err

    def main_without_mta(self, *arguments: str) -> tuple[int, str]:
        """The mail server is looked for below `root`."""
        files = ("--config", str(self.config), "--root", str(self.root))
        code = main(["setup", *files, *arguments])
        said = self._capsys.readouterr()
        return code, said.out + said.err


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Place:
    return Place(tmp_path, capsys)


def test_without_apply_nothing_is_written(place: Place) -> None:
    """It shows the lines as they would be, the existing milters kept."""
    before = place.main.read_bytes()
    code, said = place.run()
    assert code == 0
    assert f"smtpd_milters = {OURS}, inet:127.0.0.1:8891" in said
    assert "smtpd_forbid_bare_newline = yes" in said
    assert "inet:127.0.0.1:8891 comes after this milter" in said
    assert place.main.read_bytes() == before
    assert sorted(os.listdir(place.main.parent)) == [
        "dmarc-milter.toml",
        "main.cf",
        "master.cf",
        "sendmail.mc",
    ]


def test_apply_keeps_a_backup_and_remove_gives_the_file_back(place: Place) -> None:
    """Octets, mode and all; a second time there is nothing to do."""
    before = place.main.read_bytes()
    place.main.chmod(0o640)
    code, said = place.run("--apply")
    assert (code, "written" in said, "reload" in said) == (0, True, True)
    assert postfix.read(place.main).milters()[0].text == OURS
    assert place.main.with_name("main.cf.before-dmarc-milter").read_bytes() == before
    assert place.main.stat().st_mode & 0o777 == 0o640
    once = place.main.read_bytes()
    code, said = place.run("--apply")
    assert (code, "already" in said) == (0, True)
    assert place.main.read_bytes() == once
    assert place.run("--remove")[0] == 0
    assert place.main.read_bytes() == before
    assert place.main.stat().st_mode & 0o777 == 0o640
    assert "not written anything there" in place.run("--remove")[1]


@pytest.mark.parametrize(("mta", "name"), [("postfix", "main.cf"), ("sendmail", "sendmail.mc")])
def test_the_backup_stays_the_file_without_our_lines(place: Place, mta: str, name: str) -> None:
    """A second --apply, after the socket has changed, finds our own lines in the file."""
    path = place.main.with_name(name)
    before = path.read_bytes()
    place.run("--apply", mta=mta)
    place.config.write_text('[milter]\nsocket = "inet:8999@127.0.0.1"\n')
    code, said = place.run("--apply", mta=mta)
    assert (
        code,
        "127.0.0.1" in path.read_text(errors="replace"),
        "8999" in path.read_text(errors="replace"),
    ) == (0, True, True)
    kept = path.with_name(f"{name}.before-dmarc-milter")
    assert str(kept) in said
    assert kept.read_bytes() == before


def test_a_backup_that_cannot_be_written_is_one_line(place: Place) -> None:
    before = place.main.read_bytes()
    kept = place.main.with_name("main.cf.before-dmarc-milter")
    kept.symlink_to(place.main.parent / "none" / "x")
    code, said = place.run("--apply")
    assert (code, said) == (
        1,
        f"dmarc-milter: {kept}: cannot be written: No such file or directory\n",
    )
    assert place.main.read_bytes() == before


def test_a_link_stays_a_link(place: Place, tmp_path: Path) -> None:
    """main.cf may be kept elsewhere."""
    real = tmp_path / "real.cf"
    place.main.rename(real)
    place.main.symlink_to(real)
    assert place.run("--apply")[0] == 0
    assert place.main.is_symlink()
    assert OURS in real.read_text(errors="replace")


def test_lines_that_somebody_else_wrote_are_left(place: Place) -> None:
    """The README's postconf command, say: nothing is written twice, and --remove does not take it
    out."""
    place.main.write_text(
        MAIN.replace("= inet:127.0.0.1:8891", "= inet:localhost:8893 inet:127.0.0.1:8891")
    )
    before = place.main.read_bytes()
    assert "written by somebody else" in place.run("--apply")[1]
    assert "not written anything there" in place.run("--remove")[1]
    assert place.main.read_bytes() == before


def test_a_chrooted_smtpd_needs_a_socket_below_its_queue(place: Place) -> None:
    """Said before anything is written; below the queue directory the path is given relative to
    it."""
    place.config.write_text('[milter]\nsocket = "unix:/run/dmarc-milter/milter.sock"\n')
    before = place.main.read_bytes()
    code, said = place.run("--apply")
    assert code == 1
    assert "chrooted" in said
    assert "--socket unix" in said
    assert place.main.read_bytes() == before
    place.config.write_text(
        '[milter]\nsocket = "unix:/var/spool/postfix/dmarc-milter/milter.sock"\n'
    )
    code, said = place.run("--apply")
    assert code == 0
    files = postfix.read(place.main)
    assert files.milters()[0].endpoint == "unix:dmarc-milter/milter.sock"
    assert "error:" not in said


def test_a_socket_of_systemd_is_named_by_hand(place: Place) -> None:
    """`fd:3` has no name that an MTA could use."""
    place.config.write_text('[milter]\nsocket = "fd:3"\n')
    assert "--socket" in place.run()[1]
    (place.main.parent / "master.cf").write_text("smtp inet n - n - - smtpd\n")
    code, said = place.run("--socket", "unix:/run/dmarc-milter.sock")
    assert (code, "unix:/run/dmarc-milter.sock" in said) == (0, True)
    assert place.run("--socket", "nonsense")[0] == 1


def test_missing_files_are_one_line(place: Place) -> None:
    """Without main.cf the plain lines are printed; there is nothing to apply to."""
    place.main.unlink()
    assert place.run()[0] == 0
    code, said = place.run("--apply")
    assert (code, said.count("\n")) == (1, 1)
    assert "cannot be read" in said


def test_sendmail_gets_its_line_and_is_told_to_rebuild(place: Place) -> None:
    """The .mc file is edited; making the .cf is the administrator's step."""
    before = place.mc.read_bytes()
    assert (
        "INPUT_MAIL_FILTER(`dmarc-milter', `S=inet:8893@127.0.0.1, F=T"
        in place.run(mta="sendmail")[1]
    )
    code, said = place.run("--apply", mta="sendmail")
    assert (code, "make -C /etc/mail" in said) == (0, True)
    assert place.mc.read_text().index("INPUT_MAIL_FILTER") < place.mc.read_text().index(
        "MAILER(`smtp')"
    )
    assert "already" in place.run("--apply", mta="sendmail")[1]
    assert place.run("--remove", mta="sendmail")[0] == 0
    assert place.mc.read_bytes() == before
    place.mc.write_text(
        place.mc.read_text() + "INPUT_MAIL_FILTER(`dmarc-milter', `S=inet:1@127.0.0.1')dnl\n"
    )
    assert "somebody else" in place.run("--apply", mta="sendmail")[1]
    place.mc.write_text("DAEMON_OPTIONS(`Name=MTA, InputMailFilters=other')dnl\n")
    assert "warning: InputMailFilters=" in place.run("--apply", mta="sendmail")[1]


def here(place: Place) -> Path:
    """Postfix as our own account, so that the folder can be made without root; its queue
    directory."""
    me, queue = pwd.getpwuid(os.geteuid()).pw_name, place.main.parent / "q"
    queue.mkdir()
    place.main.write_text(f"{MAIN}mail_owner = {me}\nqueue_directory = {queue}\n")
    place.config.write_text(f'[milter]\nuser = "{me}"\nsocket_group = "nogroup"\n')
    return queue


def test_a_unix_socket_is_chosen_where_a_chrooted_smtpd_reaches_it(place: Place) -> None:
    """`--socket unix`: shown first, then the folder is made with the set-group-ID bit, the
    configuration names the socket, and main.cf the path below the queue directory."""
    queue = here(place)
    before = place.main.read_bytes(), place.config.read_bytes()
    code, said = place.run("--socket", "unix")
    assert (code, list(queue.iterdir())) == (0, [])
    assert (place.main.read_bytes(), place.config.read_bytes()) == before
    assert f"-m 2750 {queue}/dmarc-milter" in said
    assert f"dmarc-milter config set milter.socket unix:{queue}/dmarc-milter/milter.sock" in said
    assert f"chroots smtp, submission to {queue}" in said
    code, said = place.run("--socket", "unix", "--apply")
    assert code == 0, said
    assert (queue / "dmarc-milter").stat().st_mode & 0o7777 == 0o2750
    config = load(place.config).milter
    assert config.socket == f"unix:{queue}/dmarc-milter/milter.sock"
    assert config.socket_group == ""
    assert postfix.read(place.main).milters()[0].endpoint == "unix:dmarc-milter/milter.sock"
    assert said.index("systemctl restart dmarc-milter") < said.index("reload")
    assert "error:" not in said
    assert "already there" in place.run("--apply")[1]


def test_a_folder_that_is_a_link_is_not_used(place: Place) -> None:
    """Its owner and mode would be given to something else."""
    queue = here(place)
    (queue / "dmarc-milter").symlink_to(place.main.parent)
    before = place.config.read_bytes()
    code, said = place.run("--socket", "unix", "--apply")
    assert (code, "cannot be made" in said) == (1, True)
    assert place.config.read_bytes() == before


def test_an_account_that_is_not_there_is_one_line(place: Place) -> None:
    place.main.write_text("mail_owner = nobody-here\n")
    code, said = place.run("--socket", "unix")
    assert (code, said.count("\n"), "nobody-here" in said) == (1, 1, True)


def test_sendmail_gets_the_socket_in_the_folder_of_systemd(place: Place) -> None:
    """It connects as root; RuntimeDirectory= of the unit."""
    code, _ = place.run("--socket", "unix", "--apply", mta="sendmail")
    assert code == 0
    assert "S=unix:/run/dmarc-milter/milter.sock, F=T" in place.mc.read_text()
    assert load(place.config).milter.socket == "unix:/run/dmarc-milter/milter.sock"


def test_what_to_switch_off_elsewhere_is_said_with_its_remedy(place: Place) -> None:
    """Other filters by what main.cf names and by their own files."""
    (place.root / "etc").mkdir(parents=True)
    (place.root / "etc/opendkim.conf").write_text("Mode sv\nSocket inet:8891@localhost\n")
    said = place.run()[1]
    assert "error: OpenDKIM (smtpd_milters: inet:127.0.0.1:8891) verifies as well as signs" in said
    file = place.root / "etc/opendkim.conf"
    assert f"&& printf '\\nMode s\\n' >> {file} && systemctl restart opendkim" in said


def test_the_mail_server_that_is_installed_is_taken(place: Place) -> None:
    """Without --mta; what was removed may have left its files."""

    def run(*arguments: str) -> tuple[int, str]:
        return place.main_without_mta(*arguments)

    assert "no Postfix or Sendmail was found" in run()[1]
    for name in ("etc/postfix/main.cf", "etc/mail/sendmail.mc"):
        (place.root / name).parent.mkdir(parents=True)
        (place.root / name).write_text("")
    assert "postfix and sendmail are here" in run()[1]
    (place.root / "usr/sbin").mkdir(parents=True)
    (place.root / "usr/sbin/postfix").touch()
    assert f"lines for {place.root}/etc/postfix/main.cf" in run()[1]
    (place.root / "usr/sbin/postfix").rename(place.root / "usr/sbin/exim4")
    code, said = run()
    assert (code, "exim.md" in said) == (1, True)


FILTER = "INPUT_MAIL_FILTER(`%s', `%s')dnl\nMAILER(`smtp')dnl\n"


@pytest.mark.parametrize(
    ("name", "equates", "words"),
    [
        (
            "opendmarc",
            "S=inet:8893@localhost, F=T",
            "the filter opendmarc has this milter's socket too",
        ),
        ("dmarc-milter", "S=inet:8893@localhost, T=S:4m", "has no F=T"),
        ("dmarc-milter", "S=inet:1@127.0.0.1, F=T", "has S=inet:1@127.0.0.1 there"),
    ],
)
def test_a_sendmail_line_that_undoes_the_milter_is_warned_about(
    place: Place, name: str, equates: str, words: str
) -> None:
    """A filter without F= is passed by while it is down; one beside it at the same socket sees and
    counts every message twice."""
    place.mc.write_text(FILTER % (name, equates))
    said = place.run("--apply", mta="sendmail")[1]
    assert said.count("warning: ") == 1
    assert words in said


@pytest.mark.parametrize(
    "line",
    [
        FILTER % ("other", "S=inet:9999@localhost"),
        "dnl " + FILTER % ("opendmarc", "S=inet:8893@localhost"),
    ],
)
def test_other_sendmail_filters_are_nobodys_business(place: Place, line: str) -> None:
    place.mc.write_text(line)
    assert "warning" not in place.run("--apply", mta="sendmail")[1]
    assert "warning" not in place.run("--apply", mta="sendmail")[1]


SMTP = "smtp inet n - n - - smtpd\n"


@pytest.mark.parametrize(
    ("main", "master", "level", "words"),
    [
        ("", SMTP, "error", "does not name this milter"),
        (
            f"smtpd_milters = inet:127.0.0.1:1, {OURS}",
            SMTP,
            "warning",
            "inet:127.0.0.1:1 comes before",
        ),
        (
            f"smtpd_milters = {OURS}, inet:127.0.0.1:1",
            SMTP,
            "note",
            "inet:127.0.0.1:1 comes after",
        ),
        (
            "smtpd_milters = { inet:127.0.0.1:8893, default_action=accept }",
            SMTP,
            "warning",
            "passes unchecked",
        ),
        (
            "smtpd_milters = inet:127.0.0.1:8893\nmilter_default_action = accept",
            SMTP,
            "warning",
            "passes unchecked",
        ),
        (
            "smtpd_milters = inet:127.0.0.1:8893\nmilter_protocol = 2",
            SMTP,
            "warning",
            "milter_protocol",
        ),
        (
            "smtpd_milters = inet:127.0.0.1:8893\nnon_smtpd_milters = $smtpd_milters",
            SMTP,
            "note",
            "non_smtpd_milters",
        ),
        (
            "smtpd_milters = inet:127.0.0.1:8893\nnon_smtpd_milters = $smtpd_milters",
            SMTP + "  -o content_filter=spamassassin:\n",
            "warning",
            "loses our result",
        ),
        (
            f"smtpd_milters = {OURS}",
            SMTP + "  -o smtpd_milters=\n",
            "warning",
            "smtp: -o smtpd_milters",
        ),
        (
            f"smtpd_milters = {OURS}",
            SMTP + "127.0.0.1:10025 inet n - n - - smtpd\n",
            "warning",
            "loses the Authentication-Results",
        ),
        (
            f"smtpd_milters = {OURS}",
            SMTP + "submission inet n - n - - smtpd\n",
            "note",
            "submission: authenticated clients",
        ),
        (
            f"smtpd_milters = {OURS}\nmynetworks = 127.0.0.1 10.0.0.0/8",
            SMTP,
            "note",
            "10.0.0.0/8, not in trusted_networks",
        ),
        (
            f"smtpd_milters = {OURS}\nmynetworks = 10.0.0.0/8",
            SMTP,
            "warning",
            "127.0.0.0/8, ::1/128, not in mynetworks",
        ),
        (
            f"smtpd_milters = {OURS}\nmynetworks = cidr:/etc/x",
            SMTP,
            "note",
            "cidr:/etc/x, which is not read here",
        ),
    ],
)
def test_what_is_worth_knowing_is_said(main: str, master: str, level: str, words: str) -> None:
    """One sentence each, with what to do."""
    files = postfix.Postfix(postfix.parse_main(main), postfix.parse_master(master))
    found = review(files, socket_address("inet:8893@127.0.0.1"), Authentication())
    assert any(each.level == level and words in each.text for each in found), found


@pytest.mark.parametrize(
    ("main", "options", "remedy"),
    [
        (OURS, "-o smtpd_milters=", "postconf -PX smtp/inet/smtpd_milters && postfix reload"),
        (
            OURS,
            "-o smtpd_milters=inet:127.0.0.1:8891",
            "postconf -P 'smtp/inet/smtpd_milters={inet:127.0.0.1:8893,default_action=tempfail,"
            "content_timeout=300s},inet:127.0.0.1:8891' && postfix reload",
        ),
        (
            OURS,
            "-o receive_override_options=no_milters",
            "postconf -P smtp/inet/receive_override_options= && postfix reload",
        ),
        (
            f"{OURS}\nreceive_override_options = no_milters, no_address_mappings",
            "",
            "postconf -e 'receive_override_options = no_address_mappings' && postfix reload",
        ),
        (
            "{ inet:127.0.0.1:8893, default_action=accept }, inet:127.0.0.1:1",
            "",
            "postconf -e 'smtpd_milters = { inet:127.0.0.1:8893, default_action=tempfail },"
            " inet:127.0.0.1:1' && postfix reload",
        ),
        (
            "inet:127.0.0.1:8893\nmilter_default_action = accept",
            "",
            "postconf -e 'milter_default_action = tempfail'",
        ),
    ],
)
def test_a_remedy_changes_the_place_where_the_fault_stands(
    main: str, options: str, remedy: str
) -> None:
    """main.cf, an option of master.cf, or the braces of one milter: the more special has the last
    word, and what else stands there stays."""
    files = postfix.Postfix(
        postfix.parse_main(f"smtpd_milters = {main}"),
        postfix.parse_master(f"smtp inet n - n - - smtpd {options}\n"),
    )
    found = review(files, socket_address("inet:8893@127.0.0.1"), Authentication())
    assert any(remedy in one.remedy and one.level == "warning" for one in found), found


@pytest.mark.parametrize(
    ("main", "master", "level", "words"),
    [
        ("milter_macro_daemon_name = ORIGINATING", SMTP, "error", "in trusted_daemons"),
        (
            "",
            SMTP + "submission inet n - n - - smtpd -o milter_macro_daemon_name=ORIGINATING\n",
            "warning",
            "offers no login",
        ),
    ],
)
def test_a_name_that_exempts_outsiders_is_said(
    main: str, master: str, level: str, words: str
) -> None:
    """FWD-20: only where the administrator says that each of trusted_daemons demands a login; else
    the name exempts nobody."""
    files = postfix.Postfix(
        postfix.parse_main(f"smtpd_milters = {OURS}\n{main}"), postfix.parse_master(master)
    )
    for says, expected in (("yes", True), ("auto", False), ("no", False)):
        found = review(
            files,
            socket_address("inet:8893@127.0.0.1"),
            Authentication(sendmail_daemons_authenticate=says),
        )
        assert any(each.level == level and words in each.text for each in found) == expected, found


def test_a_good_set_up_has_nothing_to_say() -> None:
    """As setup makes it, with mynetworks as trusted_networks."""
    main = (
        f"compatibility_level = 3.6\nsmtpd_milters = {OURS}\nmynetworks = 127.0.0.0/8 [::1]/128"
        " [::ffff:127.0.0.0]/104\n"
    )
    master = (
        SMTP + "submission inet n - n - - smtpd\n  -o milter_macro_daemon_name=ORIGINATING\n  -o"
        " smtpd_sasl_auth_enable=yes\n"
    )
    master += "pickup unix n - y 60 1 pickup\n"
    master += (
        "2525 inet n - n - - smtpd -o milter_macro_daemon_name=ORIGINATING -o"
        " smtpd_sasl_auth_enable=yes\n"
    )
    master += "127.0.0.1:10025 inet n - n - - smtpd -o smtpd_milters=\n"
    master += (
        "127.0.0.1:10026 inet n - n - - smtpd\n  -o"
        " receive_override_options=no_header_body_checks,no_milters\n"
    )
    files = postfix.Postfix(postfix.parse_main(main), postfix.parse_master(master))
    assert (
        review(
            files,
            socket_address("inet:8893@127.0.0.1"),
            Authentication(sendmail_daemons_authenticate="yes"),
        )
        == ()
    )
    (note,) = review(files, socket_address("inet:8893@127.0.0.1"), Authentication())
    assert (
        "submission: authenticated clients and trusted_networks are not evaluated, others are"
        in note.text
    )


def test_a_chroot_that_cannot_reach_the_socket_comes_first() -> None:
    """The gravest remark stands on top."""
    files = postfix.Postfix(
        {"smtpd_milters": "unix:/run/x.sock, inet:127.0.0.1:1"},
        postfix.parse_master("smtp inet n - y - - smtpd\n"),
    )
    first, *_ = review(files, socket_address("unix:/run/x.sock"), Authentication())
    assert isinstance(first, Finding)
    assert (first.level, "cannot reach /run/x.sock" in first.text) == ("error", True)


REWRITING_CF = (
    "Xdmarc-milter, S=inet:8893@127.0.0.1, F=T\nScanonify=3\nSCanonify2=96\nR$* $| $* < @ $* >"
    " $*\t\t$: $2 < @ $[ $3 $] > $4\n"
)


def test_sendmail_gets_what_keeps_it_from_rewriting_from(place: Place) -> None:
    """MTA-08: --apply writes both lines before MAILER(); shown without it, and not missed
    afterwards."""
    shown = place.run(mta="sendmail")[1]
    assert all(line in shown for line in setup_lines.SENDMAIL_STRICT)
    place.run("--apply", mta="sendmail")
    text = place.mc.read_text()
    assert all(
        text.index(line) < text.index("MAILER(`smtp')") for line in setup_lines.SENDMAIL_STRICT
    )


@pytest.mark.parametrize("arguments", [(), ("--apply",)])
def test_a_sendmail_cf_that_rewrites_from_is_warned_about_loudly(
    place: Place, arguments: tuple[str, ...]
) -> None:
    """MTA-08: the sendmail.cf in force lies beside the .mc."""
    place.mc.with_name("sendmail.cf").write_text(REWRITING_CF)
    assert "WARNING: " in (said := place.run(*arguments, mta="sendmail")[1])
    assert "REWRITES From BY THE DNS" in said
    place.mc.with_name("sendmail.cf").write_text("O DontExpandCnames=True\n")
    assert "WARNING: " not in place.run(*arguments, mta="sendmail")[1]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "FEATURE(`nocanonify', `canonify_hosts')dnl\n",
        "FEATURE(`nocanonify')dnl\nCANONIFY_DOMAIN(`a.example')dnl\n",
    ],
)
def test_lines_by_somebody_else_that_let_it_rewrite_are_warned_about(
    place: Place, line: str
) -> None:
    """MTA-08: the filter is there already, but From is not safe; nothing is changed."""
    place.mc.write_text(line + FILTER % ("dmarc-milter", "S=inet:8893@127.0.0.1, F=T"))
    before = place.mc.read_bytes()
    assert "WARNING: " in place.run("--apply", mta="sendmail")[1]
    assert place.mc.read_bytes() == before


BACK = "smtp inet n - n - - smtpd\n127.0.0.1:10025 inet n - n - - smtpd\n  -o smtpd_milters=\n"


@pytest.mark.parametrize(
    ("main_cf", "option", "words"),
    [
        ("", "", "append_dot_mydomain rewrites From"),
        ("compatibility_level = 3.6\n", "", ""),
        (
            "compatibility_level = 3.6\nappend_dot_mydomain = yes\n",
            "",
            "append_dot_mydomain rewrites From",
        ),
        (
            "compatibility_level = 3.6\ncanonical_maps = hash:/etc/postfix/canonical\n",
            "",
            "canonical_maps rewrites From",
        ),
        (
            "compatibility_level = 3.6\nmasquerade_domains = example.com\n",
            "",
            "masquerade_domains rewrites From",
        ),
        ("append_dot_mydomain = yes\n", "  -o local_header_rewrite_clients=\n", ""),
        ("append_dot_mydomain = yes\nlocal_header_rewrite_clients =\n", "", ""),
        (
            "compatibility_level = 3.6\nsmtp_generic_maps = hash:/etc/postfix/generic\n",
            "",
            "smtp_generic_maps changes header fields",
        ),
        (
            "compatibility_level = 3.6\nlmtp_generic_maps = hash:/etc/postfix/generic\n",
            "",
            "lmtp_generic_maps changes header fields",
        ),
    ],
)
def test_what_postfix_rewrites_after_the_verdict_is_said(
    main_cf: str, option: str, words: str
) -> None:
    """MTA-11: generic maps on the way out; a content filter's mail, which counts as this host's own
    (postconf(5))."""
    main = f"smtpd_milters = inet:127.0.0.1:8893\n{main_cf}"
    files = postfix.Postfix(postfix.parse_main(main), postfix.parse_master(BACK + option))
    said = [
        each.text
        for each in review(files, socket_address("inet:8893@127.0.0.1"), Authentication())
        if "From" in each.text
    ]
    assert len(said) == bool(words), said
    assert words in "".join(said)
