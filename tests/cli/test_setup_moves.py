"""`dmarc-milter setup` when the socket changes: no entry of this milter stays where nobody listens
any more (all mail would wait), and all is done or nothing."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from dmarc_milter.cli.config.set_value import set_value
from dmarc_milter.cli.main import main
from dmarc_milter.config import instance, load
from dmarc_milter.config.checks import socket_address
from dmarc_milter.mta import postfix

SMTP = "smtp inet n - y - - smtpd\n"
OLD = "inet:8893@127.0.0.1"


@pytest.fixture(autouse=True)
def _its_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit of this host names the configuration: tests/cli/test_units.py looks at that."""
    monkeypatch.setattr(instance, "unit_of", lambda _: "dmarc-milter")


class Place:
    """Postfix as our own account, so that the folder can be made without root."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.me = pwd.getpwuid(os.geteuid()).pw_name
        self.queue = folder / "q"
        self.queue.mkdir()
        self.config, self.main = folder / "dmarc-milter.toml", folder / "main.cf"
        self.master, self.mc = folder / "master.cf", folder / "sendmail.mc"
        self.configured(OLD)
        self.master.write_text(SMTP)

    def configured(self, socket: str) -> None:
        self.config.write_text(f'[milter]\nuser = "{self.me}"\nsocket = "{socket}"\n')

    def postfix(self, lines: str) -> None:
        self.main.write_text(f"mail_owner = {self.me}\nqueue_directory = {self.queue}\n{lines}")

    def run(self, *arguments: str, mta: str = "postfix") -> tuple[int, str]:
        """(exit code, everything printed)"""
        files = ["--config", str(self.config), "--main-cf", str(self.main)]
        files += ["--sendmail-mc", str(self.mc), "--root", str(self.folder / "root")]
        code = main(["setup", "--mta", mta, *files, *arguments])
        said = self._capsys.readouterr()
        return code, said.out + said.err

    def everything(self) -> dict[str, bytes | None]:
        """Every file and folder below ours."""
        found = sorted(self.folder.glob("**/*"))
        return {str(path): path.read_bytes() if path.is_file() else None for path in found}

    def endpoints(self, name: str = "smtpd_milters") -> list[str]:
        return [one.endpoint for one in postfix.read(self.main).milters(name)]


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Place:
    return Place(tmp_path, capsys)


NEW = "unix:dmarc-milter/milter.sock"
FULL = "{ inet:127.0.0.1:8893, default_action=tempfail, content_timeout=300s }"


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        ("smtpd_milters = inet:127.0.0.1:8893, inet:127.0.0.1:8891\n", ["inet:127.0.0.1:8891"]),
        ("smtpd_milters = inet:127.0.0.1:8891 inet:localhost:8893", ["inet:127.0.0.1:8891"]),
        (f"smtpd_milters = {FULL}\n", []),
        (
            f"smtpd_milters=inet:1.2.3.4:1,\n  # ours\n  {FULL},\n  unix:x\n",
            ["inet:1.2.3.4:1", "unix:x"],
        ),
        ("smtpd_milters =\n  inet:[127.0.0.1]:8893\n", []),
        (
            "smtpd_milters =\n  { inet:127.0.0.1:8893,\n    # a\n    x=9s }\n  unix:x\n",
            ["unix:x"],
        ),
        ("smtpd_milters = inet:127.0.0.1:8893\nnon_smtpd_milters = $smtpd_milters\n", []),
        (
            "smtpd_milters = inet:8893@127.0.0.1\nnon_smtpd_milters = inet:localhost:8893, unix:y",
            [],
        ),
        (
            "x = inet:127.0.0.1:8893\nsmtpd_milters = inet:127.0.0.1:18893\n",
            ["inet:127.0.0.1:18893"],
        ),
        (f"smtpd_milters = {NEW}, inet:127.0.0.1:8893\n", []),
    ],
)
def test_what_was_written_by_hand_for_the_earlier_socket_goes(
    place: Place, lines: str, left: list[str]
) -> None:
    """Attached as the README says, in each spelling of Postfix: once ours listens elsewhere the
    entry would make all mail wait. Everybody else's stays, and a second time nothing changes."""
    place.postfix(lines)
    before = place.everything()
    code, said = place.run("--socket", "unix")
    assert (code, place.everything()) == (0, before), said
    code, said = place.run("--socket", "unix", "--apply")
    assert code == 0, said
    assert place.endpoints() == [NEW, *left]
    assert not any(":8893" in one for one in place.endpoints("non_smtpd_milters"))
    assert load(place.config).milter.socket.startswith("unix:")
    assert "systemctl restart dmarc-milter" in said
    once = place.main.read_bytes()
    assert place.run("--socket", "unix", "--apply")[0] == 0
    assert place.main.read_bytes() == once
    assert place.run("--remove")[0] == 0
    assert ":8893" not in "".join(place.endpoints())


@pytest.mark.parametrize(
    ("lines", "master", "words"),
    [
        ("mine = inet:127.0.0.1:8893\nsmtpd_milters = $mine\n", "", "main.cf: smtpd_milters"),
        ("mine = inet:127.0.0.1:8893\nsmtpd_milters = ${mine}, unix:x\n", "", "main.cf"),
        ("p = 8893\nsmtpd_milters = inet:127.0.0.1:$p\n", "", "main.cf"),
        ("a = b\nsmtpd_milters = ${a?{inet:127.0.0.1:8893}}\n", "", "main.cf"),
        ("non_smtpd_milters = ${x:inet:localhost:8893}\n", "", "non_smtpd_milters"),
        (
            "smtpd_milter_maps = inline:{ {192.0.2.1 = inet:127.0.0.1:8893} }\n",
            "",
            "smtpd_milter_maps",
        ),
        ("", "  -o smtpd_milters=inet:127.0.0.1:8893\n", "smtp/inet/smtpd_milters"),
        ("", "  -o { smtpd_milters = unix:x, inet:localhost:8893 }\n", "smtp/inet"),
        ("m =\nsmtpd_milters = $m\n", "  -o m=inet:127.0.0.1:8893\n", "smtp/inet"),
        (
            "",
            "cleanup unix n - y - 0 cleanup\n  -o non_smtpd_milters=inet:127.0.0.1:8893\n",
            "cleanup/unix",
        ),
    ],
)
def test_what_is_not_edited_here_is_refused_before_anything_is_written(
    place: Place, lines: str, master: str, words: str
) -> None:
    """References, conditions, tables and master.cf."""
    place.postfix(lines)
    place.master.write_text(SMTP + master)
    before = place.everything()
    for arguments in (("--socket", "unix", "--apply"), ("--socket", "unix")):
        code, said = place.run(*arguments)
        assert (code, words in said, "nothing was changed" in said) == (1, True, True), said
        assert place.everything() == before


def test_a_table_of_milters_is_looked_into(place: Place) -> None:
    """smtpd_milter_maps: by client, ours in a file."""
    table = place.folder / "table"
    place.postfix(f"smtpd_milter_maps = cidr:{table}\n")
    table.write_text("# inet:127.0.0.1:8893\n192.0.2.0/24 DISABLE\n")
    assert place.run("--socket", "unix")[0] == 0
    table.write_text("192.0.2.0/24 inet:localhost:8893\n")
    code, said = place.run("--socket", "unix", "--apply")
    assert (code, f"{table} (smtpd_milter_maps)" in said) == (1, True)


def test_a_socket_of_systemd_is_left_too(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What dmarc-milter.socket listens on was named; systemd must not open it any more."""
    place.configured("fd:3")
    here = socket_address("inet:8899@127.0.0.1")
    monkeypatch.setattr("dmarc_milter.checks.host.listening", lambda: here)
    place.postfix("smtpd_milters = inet:127.0.0.1:8899, unix:x\n")
    code, said = place.run("--socket", "unix", "--apply")
    assert (code, place.endpoints()) == (0, [NEW, "unix:x"]), said
    assert "systemctl disable --now dmarc-milter.socket && systemctl restart" in said


def test_a_socket_on_every_address_is_known_by_each_of_them(place: Place) -> None:
    """0.0.0.0: loopback is ours for certain; another address of that port is left to the
    administrator."""
    place.configured("inet:8893@0.0.0.0")
    place.postfix("smtpd_milters = inet:127.0.0.1:8893\n")
    assert place.run("--socket", "unix", "--apply")[0] == 0
    assert place.endpoints() == [NEW]
    place.configured("inet:8893@0.0.0.0")
    place.postfix("smtpd_milters = inet:mx.example:8893\n")
    code, said = place.run("--socket", "unix", "--apply")
    assert (code, "mx.example:8893" in said) == (1, True)


def test_back_from_unix_to_tcp(place: Place) -> None:
    """The places that `setup` chooses are known to be ours, whoever wrote them; ours of another
    port is known by the marked lines."""
    place.configured(f"unix:{place.queue}/dmarc-milter/milter.sock")
    place.postfix("smtpd_milters = unix:/run/dmarc-milter/milter.sock, unix:x\n")
    place.master.write_text("smtp inet n - n - - smtpd\n")
    place.configured(OLD)
    assert place.run("--apply")[0] == 0
    assert place.endpoints() == ["inet:127.0.0.1:8893", "unix:x"]
    place.configured("inet:8999@127.0.0.1")
    place.master.write_text(SMTP + "  -o smtpd_milters=inet:127.0.0.1:8893\n")
    code, said = place.run("--apply")
    assert (code, "smtp/inet/smtpd_milters" in said) == (1, True)


def test_a_socket_that_the_milter_does_not_listen_on_is_not_attached(place: Place) -> None:
    """--socket with another address than the configuration's leaves the configuration alone."""
    place.configured(f"unix:{place.queue}/milter.sock")
    place.postfix("")
    before = place.everything()
    code, said = place.run("--socket", OLD, "--apply")
    assert (code, f"config set milter.socket {OLD}" in said) == (1, True)
    assert place.everything() == before


def test_remove_names_what_others_wrote(place: Place) -> None:
    """Who stops the milter afterwards would make mail wait."""
    place.postfix("smtpd_milters = inet:127.0.0.1:8893\n")
    assert "warning: main.cf: smtpd_milters" in place.run("--remove")[1]
    place.mc.write_text("INPUT_MAIL_FILTER(`dmarc-milter', `S=inet:8893@localhost, F=T')dnl\n")
    assert "warning: sendmail.mc names" in place.run("--remove", mta="sendmail")[1]


def test_a_broken_block_changes_nothing(place: Place) -> None:
    place.postfix("# dmarc-milter setup: begin (dmarc-milter setup --remove takes it out)\nx = y\n")
    before = place.everything()
    assert place.run("--socket", "unix", "--apply")[0] == 1
    assert place.everything() == before


@pytest.mark.parametrize("way", ["a link for a folder", "a second source", "no configuration file"])
def test_all_is_done_or_nothing(place: Place, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails last takes back what was written first, the backup too."""
    place.postfix("smtpd_milters = inet:127.0.0.1:8893\n")
    if way == "a link for a folder":
        (place.queue / "dmarc-milter").symlink_to(place.folder)
    elif way == "a second source":
        monkeypatch.setenv("DMARC_MILTER__MILTER__SOCKET", f'"{OLD}"')
    else:
        monkeypatch.setattr(
            "dmarc_milter.cli.setup.unix_socket.set_value", _refuses_the_second_time()
        )
        place.config.write_text(place.config.read_text() + 'socket_group = "nogroup"\n')
    before = place.everything()
    try:
        code, _ = place.run("--socket", "unix", "--apply")
    except SystemExit as end:
        code = int(str(end.code))
    assert code != 0
    assert place.everything() == before


def _refuses_the_second_time() -> Callable[[Path, str, str], str]:
    def refusing(path: Path, key: str, text: str) -> str:
        if key == "milter.socket_group":
            raise OSError(28, "No space left on device")
        return set_value(path, key, text)

    return refusing


README_LINE = (
    "INPUT_MAIL_FILTER(`dmarc-milter', `S=inet:8893@127.0.0.1, F=T, T=S:4m;R:4m;E:5m')dnl\n"
)
UNIX_LINE = "INPUT_MAIL_FILTER(`dmarc-milter', `S=unix:/run/dmarc-milter/milter.sock, F=T"
SIGNER = "INPUT_MAIL_FILTER(`signer', `S=inet:8891@localhost')dnl\n"


@pytest.mark.parametrize("line", [README_LINE, README_LINE.replace("127.0.0.1", "localhost")])
def test_sendmail_s_line_by_hand_is_replaced(place: Place, line: str) -> None:
    """The README's own line: the filter keeps its name, which InputMailFilters may list."""
    place.mc.write_text(f"OSTYPE(`linux')dnl\n{SIGNER}{line}MAILER(`smtp')dnl\n")
    code, said = place.run("--socket", "unix", "--apply", mta="sendmail")
    text = place.mc.read_text()
    assert (code, text.count("`dmarc-milter'"), UNIX_LINE in text) == (0, 1, True), said
    assert "8893" not in text
    assert SIGNER in text
    assert "systemctl restart dmarc-milter" in said
    assert "make -C /etc/mail" in said
    place.configured(OLD)
    assert place.run("--apply", mta="sendmail")[0] == 0
    assert "unix:" not in place.mc.read_text()


@pytest.mark.parametrize(
    "line",
    [
        README_LINE.replace("8893", "9999"),
        README_LINE.replace("INPUT_MAIL", "MAIL"),
        README_LINE.replace("`dmarc-milter'", "`dmarc'"),
        README_LINE.replace(", `S", ",\n `S"),
        "LOCAL_CONFIG\nXdmarc-milter, S=inet:8893@127.0.0.1, F=T\n",
        "dnl dmarc-milter setup: begin (dmarc-milter setup --remove takes it out)\n",
        None,
    ],
)
def test_sendmail_lines_that_are_not_edited_are_refused_first(
    place: Place, line: str | None
) -> None:
    """At another socket, of another form or name, without the end of the block; and a sendmail.mc
    that is not there."""
    if line is not None:
        place.mc.write_text(line)
    before = place.everything()
    code, said = place.run("--socket", "unix", "--apply", mta="sendmail")
    assert (code, place.everything()) == (1, before), said


def test_a_filter_from_a_file_that_sendmail_includes_is_refused(place: Place) -> None:
    """The sendmail.cf in force has it, sendmail.mc has not."""
    place.mc.write_text("include(`/etc/mail/filters.m4')dnl\nMAILER(`smtp')dnl\n")
    place.mc.with_suffix(".cf").write_text("Xours, S=inet:8893@localhost, F=T\n")
    before = place.everything()
    code, said = place.run("--socket", "unix", "--apply", mta="sendmail")
    assert (code, "a file that it includes" in said) == (1, True), said
    assert place.everything() == before


def test_a_line_by_hand_for_the_new_socket_stays(place: Place) -> None:
    """Both mail servers: the configuration is what was missing, and the restart is said."""
    place.postfix(f"smtpd_milters = {NEW}\n")
    place.mc.write_text(
        README_LINE.replace("inet:8893@127.0.0.1", "unix:/run/dmarc-milter/milter.sock")
    )
    for mta, path in (("postfix", place.main), ("sendmail", place.mc)):
        place.configured(OLD)
        before = path.read_bytes()
        code, said = place.run("--socket", "unix", "--apply", mta=mta)
        assert (code, path.read_bytes()) == (0, before), said
        assert load(place.config).milter.socket.startswith("unix:")
        assert "systemctl restart dmarc-milter" in said
