"""Other filters beside this one: found by what the MTA names, by their usual sockets and by their
own files, and what is said about each."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.config.checks import socket_address
from dmarc_milter.config.schema_policy import Authentication
from dmarc_milter.core.check_finding import Finding
from dmarc_milter.mta import other_filter_files, other_filters, postfix, sendmail_review
from dmarc_milter.mta.other_filter_advice import advice, order
from dmarc_milter.mta.postfix_review import review

SOCKET = socket_address("inet:8893@127.0.0.1")
OURS = "{ inet:127.0.0.1:8893, default_action=tempfail }"
MASTER = "smtp inet n - y - - smtpd\n"


def said(
    main: str, master: str = MASTER, root: Path = Path("/nowhere"), socket: str = ""
) -> list[Finding]:
    """About a Postfix and a host."""
    files = postfix.Postfix(postfix.parse_main(main), postfix.parse_master(master))
    here = socket_address(socket) if socket else SOCKET
    installed = other_filter_files.installed(root)
    return list(advice(other_filters.of_postfix(files, here, installed), installed, here))


def host(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("endpoint", "kind"),
    [
        ("inet:127.0.0.1:11332", "Rspamd"),
        ("inet:localhost:11332", "Rspamd"),
        ("unix:/run/rspamd/milter.sock", "Rspamd"),
        ("inet:127.0.0.1:8891", "OpenDKIM"),
        ("inet:opendkim:12301", "OpenDKIM"),
        ("unix:opendkim/opendkim.sock", "OpenDKIM"),
        ("local:/opendkim/opendkim.sock", "OpenDKIM"),
        ("unix:opendmarc/opendmarc.sock", "OpenDMARC"),
        ("inet:127.0.0.1:54321", "OpenDMARC"),
        ("unix:spamass/spamass.sock", "SpamAssassin"),
        ("unix:/var/lib/amavis/amavisd-milter.sock", "Amavis"),
        ("unix:/clamav/clamav-milter.ctl", "ClamAV"),
        ("{ unix:dkimpy-milter/dkimpy-milter.sock, default_action=accept }", "dkimpy-milter"),
        ("inet:127.0.0.1:9999", "another filter"),
    ],
)
def test_a_milter_is_known_by_its_path_or_port(endpoint: str, kind: str) -> None:
    files = postfix.Postfix(
        postfix.parse_main(f"smtpd_milters = {OURS}, {endpoint}"), postfix.parse_master(MASTER)
    )
    (found,) = other_filters.of_postfix(files, SOCKET)
    assert (found.kind, found.position) == (kind, 1)


def test_a_milter_at_an_odd_place_is_known_by_its_own_file(tmp_path: Path) -> None:
    """OpenDKIM's Socket, which lies below the queue directory of the chrooted smtpd."""
    root = host(
        tmp_path, {"etc/opendkim.conf": "# mine\nSocket local:/var/spool/postfix/x/y\nmode s\n"}
    )
    (found,) = said(f"smtpd_milters = {OURS}, unix:x/y", root=root)
    assert (found.level, "OpenDKIM" in found.text, "only signs" in found.text) == (
        "note",
        True,
        True,
    )


@pytest.mark.parametrize(
    ("mode", "order", "level", "remedy"),
    [
        ("", "{ours}, {dkim}", "error", "Mode s"),
        ("Mode sv", "{ours}, {dkim}", "error", "Mode s"),
        ("Mode sv", "{dkim}, {ours}", "warning", "Mode s"),
        ("Mode v", "{ours}, {dkim}", "error", "systemctl disable --now opendkim"),
        ("Mode s", "{ours}, {dkim}", "note", ""),
    ],
)
def test_opendkim_that_verifies_would_delete_our_field(
    tmp_path: Path, mode: str, order: str, level: str, remedy: str
) -> None:
    """opendkim.conf(5): Mode is sv where nothing is said, and a verifying one removes
    Authentication-Results of its own host's name with a dkim result."""
    root = host(tmp_path, {"etc/opendkim.conf": f"{mode}\nSocket inet:8891@localhost\n"})
    line = order.format(ours=OURS, dkim="inet:127.0.0.1:8891")
    (found,) = said(f"smtpd_milters = {line}", root=root)
    assert found.level == level
    assert remedy in found.remedy
    (found,) = said(
        f"smtpd_milters = {OURS}",
        MASTER + "submission inet n - n - - smtpd\n -o smtpd_milters=inet:localhost:8891\n",
        root,
    )
    assert found.level == "note"


def test_opendmarc_goes(tmp_path: Path) -> None:
    (found,) = said(f"smtpd_milters = {OURS}, local:opendmarc/opendmarc.sock")
    assert found.level == "warning"
    assert "dmarc-milter import /etc/opendmarc.conf" in found.text
    assert found.remedy == (
        f"postconf -e 'smtpd_milters = {OURS}' && postfix reload && systemctl disable --now"
        " opendmarc"
    )
    root = host(tmp_path, {"etc/opendmarc.conf": "Socket local:/run/opendmarc/opendmarc.sock\n"})
    (found,) = said(f"smtpd_milters = {OURS}", root=root)
    assert (found.level, "does not name it" in found.text) == ("note", True)


@pytest.mark.parametrize("spelled", ["inet:8893@localhost", "inet:8893@127.0.0.1", "inet:8893"])
def test_opendmarc_on_our_own_port_is_an_error(tmp_path: Path, spelled: str) -> None:
    """8893 is its usual port too: what answers there would not be this milter."""
    root = host(tmp_path, {"etc/opendmarc.conf": f"Socket {spelled}\n"})
    (found,) = said("smtpd_milters = inet:localhost:8893", root=root)
    assert (found.level, "only one of them can" in found.text) == ("error", True)
    assert found.remedy == "systemctl disable --now opendmarc"


RSPAMD = f"smtpd_milters = {OURS}, inet:localhost:11332"


@pytest.mark.parametrize(
    ("files", "level", "words"),
    [
        ({}, "note", "for its score"),
        (
            {"local.d/milter_headers.conf": 'use = ["authentication-results"];'},
            "error",
            "removes ours",
        ),
        ({"local.d/milter_headers.conf": '# use = ["authentication-results"];'}, "note", "score"),
        ({"local.d/milter_headers.conf": 'use = "authentication-results";'}, "error", "ours"),
        ({"local.d/milter_headers.conf": "routines { authentication-results { } }"}, "note", ""),
        ({"local.d/dmarc.conf": 'actions { reject = "reject"; }'}, "warning", "applies DMARC"),
        ({"local.d/dmarc.conf": "reporting { enabled = true; }"}, "warning", "reports"),
        ({"override.d/dmarc.conf": "enabled = false;"}, "", ""),
    ],
)
def test_what_rspamd_must_not_do_is_said(
    tmp_path: Path, files: dict[str, str], level: str, words: str
) -> None:
    """Its Authentication-Results replace ours; its DMARC actions and reports double ours."""
    everything = {"rspamd.conf": ""} | files
    root = host(tmp_path, {f"etc/rspamd/{name}": text for name, text in everything.items()})
    found = said(RSPAMD, root=root)
    assert (found[0].level if found else "") == level
    assert not level or words in found[0].text


ROUTINES = (
    'routines {\n  authentication-results {\n    header = "Authentication-Results";\n  }\n}\n'
)


@pytest.mark.parametrize(
    ("use", "left"),
    [
        ('use = ["authentication-results"];', "use = [];"),
        ('use = ["a", "authentication-results", "b"];', 'use = ["a", "b"];'),
        ('use = ["authentication-results", "a"];', 'use = ["a"];'),
        ('use = ["a", "authentication-results"];', 'use = ["a"];'),
        ("use: [a,authentication-results]", "use: [a]"),
        ('use [\n  "a",\n  "authentication-results",\n]', 'use [\n  "a",\n]'),
        ('use = "authentication-results";', ""),
        (
            'use = ["authentication-results", "my-authentication-results"];',
            'use = ["my-authentication-results"];',
        ),
    ],
)
def test_rspamd_s_remedy_changes_use_alone(tmp_path: Path, use: str, left: str) -> None:
    """Settings of the routine stand in the same file, often; what was there is kept beside it."""
    files = {"etc/rspamd/local.d/milter_headers.conf": f"{ROUTINES}{use}\n{ROUTINES}"}
    root = host(tmp_path, files | {"etc/rspamd/modules.d/milter_headers.conf": use})
    found = said(RSPAMD, root=root)[0]
    assert found.level == "error"
    subprocess.run(["/bin/sh", "-c", found.remedy.partition(" && ")[0]], check=True)
    file = root / "etc/rspamd/local.d/milter_headers.conf"
    assert file.read_text() == f"{ROUTINES}{left}\n{ROUTINES}"
    assert file.with_suffix(".conf.bak").read_text() == f"{ROUTINES}{use}\n{ROUTINES}"
    assert (root / "etc/rspamd/modules.d/milter_headers.conf").read_text() == use
    assert said(RSPAMD, root=root)[0].level == "note"


def test_amavis_is_known_as_a_content_filter(tmp_path: Path) -> None:
    main = f"smtpd_milters = {OURS}\ncontent_filter = smtp-amavis:[127.0.0.1]:10024\n"
    (found,) = said(main)
    assert (found.level, "Amavis" in found.text) == ("note", True)
    root = host(
        tmp_path,
        {
            "etc/amavis/conf.d/20-debian_defaults": "$enable_dkim_verification = 0; # no\n",
            "etc/amavis/conf.d/50-user": "$enable_dkim_verification = 1;\n",
        },
    )
    (found,) = said(main, root=root)
    assert (found.level, "etc/amavis/conf.d/60-dmarc-milter" in found.remedy) == ("warning", True)


@pytest.mark.parametrize(
    "master",
    ["smtp inet n - y - - smtpd -o smtpd_proxy_filter=127.0.0.1:10024\n", MASTER],
)
def test_behind_a_proxy_filter_nothing_would_be_judged(master: str) -> None:
    """MILTER_README: with a before-queue content filter milters see no header and no body."""
    main = f"smtpd_milters = {OURS}\n"
    main += "smtpd_proxy_filter = 127.0.0.1:10024\n" if master == MASTER else ""
    found = said(main, master)
    assert (found[0].level, "nothing is judged" in found[0].text) == ("error", True)


BACK = (
    "127.0.0.1:10026 inet n - n - - smtpd\n  -o smtpd_authorized_xforward_hosts=127.0.0.0/8\n"
    "  -o smtpd_proxy_filter=\n"
)
INTO = "content_filter=smtp:[127.0.0.1]:10025"


@pytest.mark.parametrize(
    ("main", "master", "commands"),
    [
        (
            "",
            "smtp inet n - n - 20 smtpd\n  -o smtpd_proxy_filter=127.0.0.1:10025\n" + BACK,
            [
                "postconf -PX smtp/inet/smtpd_proxy_filter",
                f"postconf -P 'smtp/inet/{INTO}'",
                "postconf -P '127.0.0.1:10026/inet/content_filter='",
            ],
        ),
        (
            "",
            "smtp inet n - n - 1 postscreen\nsmtpd pass - - n - - smtpd -o"
            " { smtpd_proxy_filter = inet:10025 }\n",
            ["postconf -PX smtpd/pass/smtpd_proxy_filter", f"postconf -P 'smtpd/pass/{INTO}'"],
        ),
        (
            "smtpd_proxy_filter = [127.0.0.1]:10025",
            MASTER + BACK + "submission inet n - n - - smtpd -o smtpd_proxy_filter=\n",
            [
                "postconf -X smtpd_proxy_filter",
                f"postconf -P 'smtp/inet/{INTO}'",
                "postconf -P '127.0.0.1:10026/inet/content_filter='",
            ],
        ),
        ("smtpd_proxy_filter = unix:/run/scan", MASTER, []),
        ("smtpd_proxy_filter = 127.0.0.1:10025", "", []),
        ("smtpd_proxy_filter = 127.0.0.1:10025\ncontent_filter = x:", MASTER + BACK, []),
        ("smtpd_proxy_filter = :10025", MASTER + "a'b inet n - n - - smtpd\n", []),
    ],
)
def test_a_proxy_is_replaced_where_it_stands_and_mail_cannot_loop(
    main: str, master: str, commands: list[str]
) -> None:
    """SMTPD_PROXY_README has it as an option of smtp/inet, where -X of main.cf does nothing.
    content_filter in main.cf would hold at the port where mail comes back too. Where commands
    cannot be given, words say both."""
    found = next(
        one for one in said(f"smtpd_milters = {OURS}\n{main}\n", master) if "proxy" in one.text
    )
    assert "postconf -e" not in found.remedy
    if commands:
        assert found.remedy == " && ".join([*commands, "postfix reload"])
    else:
        assert "postconf" not in found.remedy
        assert "mail goes round" in found.remedy


def test_spamassassin_in_a_pipe_is_known_by_its_command() -> None:
    """A transport whose name says nothing."""
    master = MASTER + (
        "scan unix - n n - - pipe\n  user=debian-spamd argv=/usr/bin/spamc -e /usr/sbin/sendmail\n"
    )
    (found,) = said(f"smtpd_milters = {OURS}\ncontent_filter = scan:\n", master)
    assert "SpamAssassin" in found.text


def test_spamassassin_before_us_breaks_signatures() -> None:
    """It wraps what it takes for spam, and the policy then refuses genuine mail."""
    (found,) = said(f"smtpd_milters = unix:spamass/spamass.sock, {OURS}")
    assert (found.level, "signature breaks" in found.text) == ("error", True)
    (found,) = said(f"smtpd_milters = {OURS}, unix:spamass/spamass.sock")
    assert found.level == "note"


def test_an_spf_policy_service_refuses_before_dmarc_is_judged(tmp_path: Path) -> None:
    """Forwarded mail fails SPF and passes by DKIM."""
    main = f"smtpd_milters = {OURS}\nsmtpd_recipient_restrictions = reject_unauth_destination,\n"
    main += "  check_policy_service unix:private/policyd-spf, check_policy_service inet:[::1]:60\n"
    (found,) = said(main)
    assert (found.level, "by SPF alone" in found.text) == ("warning", True)
    file = other_filter_files.POLICYD
    silent = "HELO_reject = False\nMail_From_reject = False\n"
    assert said(main, root=host(tmp_path, {file: silent})) == []
    (found,) = said(main, root=host(tmp_path, {file: "HELO_reject = Fail\n"}))
    assert "policyd-spf.conf" in found.remedy


def test_sendmail_s_filters_are_known_too(tmp_path: Path) -> None:
    """By their names in sendmail.mc or their sockets; ours stands in the middle."""
    text = (
        "INPUT_MAIL_FILTER(`greylist', `S=local:/run/milter-greylist.sock')dnl\n"
        "INPUT_MAIL_FILTER(`dmarc-milter', `S=inet:8893@127.0.0.1, F=T')dnl\n"
        "INPUT_MAIL_FILTER(`sign', `S=inet:8891@localhost')dnl\n"
        "dnl INPUT_MAIL_FILTER(`opendmarc', `S=inet:1@localhost')dnl\n"
    )
    found = other_filters.of_sendmail(sendmail_review.of_mc(text), SOCKET)
    assert [(one.kind, one.position) for one in found] == [("milter-greylist", -1), ("OpenDKIM", 1)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"{OURS}, inet:localhost:8891, inet:localhost:11332", [OURS, "11332", "8891"]),
        (f"inet:localhost:11332, {OURS}", [OURS, "11332"]),
        (f"{OURS}, unix:opendmarc/opendmarc.sock, inet:[::1]:9", [OURS, "inet:[::1]:9"]),
        (f"{OURS}, inet:localhost:11332, {{ inet:localhost:8891, default_action=accept }}", []),
        (f"{OURS}", []),
        ("inet:localhost:8891, inet:localhost:11332", []),
    ],
)
def test_the_order_that_is_right_is_said(before: str, after: list[str]) -> None:
    """This milter, what filters, what signs; what judges again is left out. The line can be
    pasted."""
    files = postfix.Postfix(
        postfix.parse_main(f"smtpd_milters = {before}"), postfix.parse_master(MASTER)
    )
    found = list(order(files, SOCKET, ()))
    assert bool(found) == bool(after)
    for finding in found:
        line = finding.remedy.partition("smtpd_milters = ")[2].partition("' &&")[0]
        pasted = postfix.Postfix({"smtpd_milters": line}, files.services)
        elements = [milter.text for milter in pasted.milters()]
        assert len(elements) == len(after)
        assert all(words in one for words, one in zip(after, elements, strict=True))
        assert list(order(pasted, SOCKET, ())) == []


@pytest.mark.parametrize(
    ("main", "master"),
    [
        ("smtpd_milter_maps = cidr:/etc/postfix/milters", MASTER),
        ("", MASTER + "25 inet n - n - - smtpd -o smtpd_milter_maps=cidr:/x\n"),
        ("non_smtpd_milters = inet:localhost:54321, unix:\u202e", MASTER),
    ],
)
def test_a_filter_that_stays_named_is_not_stopped_by_a_command(main: str, master: str) -> None:
    """A table is not edited here, and what is not printable is no command. Stopped alone, the
    filter would make all mail wait."""
    found = said(f"smtpd_milters = {OURS}, unix:opendmarc/opendmarc.sock\n{main}\n", master)
    assert found
    for one in found:
        assert one.remedy.startswith("take OpenDMARC (")
        assert one.remedy.endswith("by hand, then: systemctl disable --now opendmarc")


def test_an_opendkim_that_signs_elsewhere_stays(tmp_path: Path) -> None:
    """One that verifies at the door, another that signs for our users: only the first goes, and
    from wherever it is named."""
    root = host(tmp_path, {"etc/opendkim.conf": "Mode v\nSocket inet:8891@localhost\n"})
    master = MASTER + (
        "submission inet n - n - - smtpd -o smtpd_milters=inet:127.0.0.1:12301,inet:127.0.0.1:8891"
        "\nsubmissions inet n - n - - smtpd -o smtpd_milters=inet:127.0.0.1:12301\n"
    )
    main = f"smtpd_milters = {OURS}, inet:127.0.0.1:8891, inet:127.0.0.1:12301"
    found = [one for one in said(main, master, root) if one.level != "note"]
    commands = [one.remedy for one in found if "disable" in one.remedy]
    assert commands == [
        f"postconf -e 'smtpd_milters = {OURS}, inet:127.0.0.1:12301' && postconf -P"
        " submission/inet/smtpd_milters=inet:127.0.0.1:12301 && postfix reload && systemctl disable"
        " --now opendkim"
    ]
    assert any("its configuration was not found" in one.text for one in found)


def test_lists_wait_until_smtpd_reaches_the_socket() -> None:
    """`setup --socket unix` moves this milter: a list with its old place would undo that."""
    files = postfix.Postfix(
        postfix.parse_main("smtpd_milters = unix:spamass/x, unix:opendmarc/x, unix:/run/d.sock"),
        postfix.parse_master(MASTER),
    )
    here = socket_address("unix:/run/d.sock")
    found = [
        *review(files, here, Authentication()),
        *order(files, here, ()),
        *advice(other_filters.of_postfix(files, here), (), here),
    ]
    assert len([one for one in found if one.remedy]) >= 4
    assert not any("postconf" in one.remedy for one in found)


@pytest.mark.parametrize("endpoint", ["inet:localhost:8893", "inet:127.0.0.1:8893"])
def test_our_usual_port_is_opendmarc_s_only_where_its_file_says_so(
    tmp_path: Path, endpoint: str
) -> None:
    """8893 is OpenDMARC's too. It may be this milter under another configuration."""
    main, elsewhere = f"smtpd_milters = {endpoint}", "inet:8894@127.0.0.1"
    assert all("OpenDMARC" not in one.text for one in said(main, socket=elsewhere))
    root = host(tmp_path, {"etc/opendmarc.conf": "Socket inet:8893@localhost\n"})
    (found,) = said(main, root=root, socket=elsewhere)
    assert "disable --now opendmarc" in found.remedy
    files = postfix.Postfix(postfix.parse_main(main), postfix.parse_master(MASTER))
    assert other_filters.of_postfix(files, SOCKET, other_filter_files.installed(root)) == ()


def test_what_signs_on_our_socket_is_not_stopped(tmp_path: Path) -> None:
    """Mail would leave without signatures."""
    root = host(tmp_path, {"etc/opendkim.conf": "Mode s\nSocket inet:8893@localhost\n"})
    found = next(one for one in said(f"smtpd_milters = {OURS}", root=root) if one.level == "error")
    assert found.remedy.startswith("give OpenDKIM another socket")


WHOLE = "INPUT_MAIL_FILTER(`opendmarc', `S=local:/run/o.sock, F=T')dnl\n"
HALF = "INPUT_MAIL_FILTER(`opendmarc', `S=local:/run/o.sock,\n  F=T')dnl\n"
FROM_CF = (sendmail_review.MailFilter("opendmarc", "local:/run/o.sock", "T"),)


@pytest.mark.parametrize(
    ("text", "is_command"),
    [
        (WHOLE, True),
        (HALF, False),
        (HALF.replace("\n  F", "\n').*F"), False),
        (WHOLE + HALF, False),
        ("", False),
        (WHOLE.replace("dnl", " MAILER(`smtp')dnl"), False),
        (WHOLE + "define(`confINPUT_MAIL_FILTERS', `opendmarc,dmarc-milter')dnl\n", False),
        (WHOLE + "DAEMON_OPTIONS(`Name=MTA, InputMailFilters=opendmarc')dnl\n", False),
        (WHOLE + "dnl define(`confINPUT_MAIL_FILTERS', `opendmarc')\n", True),
    ],
)
def test_a_sendmail_filter_goes_whole_or_by_hand(
    tmp_path: Path, text: str, is_command: bool
) -> None:
    """m4 reads on to the parenthesis: a line taken out of the middle leaves a file that is not
    Sendmail's any more. One that is still named is not stopped."""
    mc = tmp_path / "sendmail.mc"
    mc.write_text(text)
    (one,) = other_filters.of_sendmail(FROM_CF, SOCKET, (), mc)
    (found,) = advice([one], (), SOCKET)
    assert ("sed -i" in found.remedy) == is_command
    assert found.remedy.startswith("take ") != is_command


@pytest.mark.parametrize(
    ("text", "start"), [(WHOLE, "sed -i "), (HALF, "take the whole filter"), ("", "dmarc-milter ")]
)
def test_our_lines_replace_a_filter_that_is_taken_out_whole(
    tmp_path: Path, text: str, start: str
) -> None:
    mc = tmp_path / "sendmail.mc"
    mc.write_text(text)
    assert sendmail_review.attach(mc, first=True, name="opendmarc").startswith(start)


def test_all_filters_of_a_kind_go_before_it_is_stopped(tmp_path: Path) -> None:
    mc = tmp_path / "sendmail.mc"
    mc.write_text(WHOLE + WHOLE.replace("`opendmarc'", "`second'").replace("o.sock", "opendmarc"))
    filters = sendmail_review.of_mc(mc.read_text())
    for one in other_filters.of_sendmail(filters, SOCKET, (), mc):
        assert one.without.count("sed -i") == 2


def test_nobody_beside_is_nothing_to_say() -> None:
    assert said(f"smtpd_milters = {OURS}") == []


def test_what_cannot_be_read_is_not_there(tmp_path: Path) -> None:
    """A folder in the place of a file, a file that is too long, no permission."""
    (tmp_path / "etc/opendkim.conf").mkdir(parents=True)
    host(tmp_path, {"etc/opendmarc.conf": "x" * (other_filter_files.MAX_BYTES + 1)})
    assert other_filter_files.installed(tmp_path) == ()


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_text_is_read_without_an_error(main: str, master: str) -> None:
    said(f"smtpd_milters = {main}\ncontent_filter = {main}\n", f"{master}\n{MASTER}")
