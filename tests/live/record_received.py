"""Records the Received fields that real mail programs write for hostile clients, into
tests/vectors/received-PROGRAM.txt.

    cd tests && python -m live.record_received [PROGRAM ...]        as root, on Debian; nothing is
    installed

Exim, Courier and OpenSMTPD are unpacked into .test/received and run in namespaces of their own,
with the unpacked files laid over /usr and /etc; Postfix and Sendmail are those of the live tests.
Each entry is the client's real address and the field.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from live import namespace, sendmail
from live.place import REPOSITORY, eventually, private_folder
from live.postfix import private_postfix
from live.smtp import Smtp

UNPACKED = REPOSITORY / ".test" / "received"
VECTORS = REPOSITORY / "tests" / "vectors"
CLIENT, NAMED, VICTIM = "192.0.2.66", "192.0.2.67", "203.0.113.9"
LETTER = b"From: a@b.example\r\n\r\nx\r\n"
Entry = tuple[str, bytes]
"""The real address, and the field's value as written."""

HELOS = [
    "h.example",
    f"[{VICTIM}]",
    f"[{CLIENT}]",
    f"x@{VICTIM}",
    f"x [{VICTIM}]",
    f"x ([{VICTIM}])",
    f"x (unknown [{VICTIM}])",
    f"helo=[{VICTIM}]",
    f"HELO [{VICTIM}]",
    "x) by q.example (8.17.1/8.17.1) with SMTP; (",
    f"q [{VICTIM}]) by q.example (Postfix) with SMTP id 1; (",
    "x(",
    "x)",
    '"x',
    "x\\",
    "by",
    "by with ; from",
    "x;y",
    "(comment)",
    "\u00e9\u20ac.example",
    "x" * 200,
    "x by " * 60,
]
IDENTS = [
    "",
    "user",
    f"x@{VICTIM}",
    f"[{VICTIM}]",
    f"x [{VICTIM}]",
    f"helo=x@{VICTIM}",
    "x) by (",
    '"',
    "\u00e9",
]
NAMES = ["ptr.example", f"[{VICTIM}]", f"helo=x@{VICTIM}", "unknown", "helo", "by"]
COMMON_NAMES = [
    "client.example",
    f"x[{VICTIM}]",
    f"x [{VICTIM}]",
    f"x (y [{VICTIM}])",
    f"x) (y [{VICTIM}]",
    "x) by q (Postfix",
    '"x\\',
    "(((",
]
RECIPIENT = '"(Exim 4.96) by q ("'


def fields(message: bytes) -> bytes:
    """The topmost Received field's value."""
    found = re.search(rb"^Received: (.*?)\r?\n(?![ \t])", message, re.MULTILINE | re.DOTALL)
    assert found, message
    return found[1].replace(b"\r\n", b"\n")


def unpack(*packages: str) -> None:
    """These Debian packages, and the libraries that this machine lacks, into UNPACKED."""
    if (UNPACKED / packages[0]).exists():
        return
    (UNPACKED / "deb").mkdir(parents=True, exist_ok=True)
    plan = subprocess.run(
        ["apt-get", "-s", "--no-install-recommends", "install", *packages],
        capture_output=True,
        text=True,
        check=False,
    )
    wanted = {*packages, *re.findall(r"^Inst (\S+)", plan.stdout, re.MULTILINE)} - {
        "postfix",
        "courier-ssl",
    }
    for name in sorted(wanted):
        subprocess.run(["apt-get", "-qq", "download", name], cwd=UNPACKED / "deb", check=True)
    for package in (UNPACKED / "deb").glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, UNPACKED / "root"], check=True)
    (UNPACKED / packages[0]).touch()


ACCOUNTS = {"Debian-exim": 65533, "opensmtpd": 65532, "opensmtpq": 65531, "courier": 65530}


def lay_over() -> None:
    """In namespaces of our own: the unpacked programs in /usr and /etc, an empty /var, and the
    accounts they insist on."""
    mount = ["mount", "-t"]
    subprocess.run([*mount, "tmpfs", "tmpfs", "/run"], check=True)
    for name in ("upper", "work"):
        Path("/run", name).mkdir()
    root = UNPACKED.resolve() / "root"
    subprocess.run(
        [*mount, "overlay", "-o", f"lowerdir={root}/usr:/usr", "overlay", "/usr"], check=True
    )
    subprocess.run(
        [
            *mount,
            "overlay",
            "-o",
            f"lowerdir={root}/etc:/etc,upperdir=/run/upper,workdir=/run/work",
            "overlay",
            "/etc",
        ],
        check=True,
    )
    subprocess.run([*mount, "tmpfs", "tmpfs", "/var"], check=True)
    for file, line in (
        ("passwd", "{0}:x:{1}:{1}::/nonexistent:/bin/false\n"),
        ("group", "{0}:x:{1}:\n"),
    ):
        with Path("/etc", file).open("a") as out:
            out.writelines(line.format(*each) for each in ACCOUNTS.items())
    Path("/etc/hosts").write_text(f"127.0.0.1 localhost\n{NAMED} ptr.example\n")
    socket.sethostname("relay.example.com")
    namespace._bring_up([CLIENT, NAMED])


EXIM = """\
primary_hostname = relay.example.com
spool_directory = /var/exim
log_file_path = /var/exim/log/%s
helo_accept_junk_hosts = *
rfc1413_hosts = :
acl_smtp_rcpt = accept
acl_smtp_data = accept
tls_advertise_hosts =
keep_environment =
begin routers
all:
 driver = accept
 transport = file
begin transports
file:
 driver = appendfile
 file = /var/exim/out/$message_exim_id
 user = Debian-exim
 group = Debian-exim
"""


def exim() -> Iterator[Entry]:
    """By `-bs`, where the options name client, host name and ident; helo_accept_junk_hosts lets any
    HELO in."""
    for name in ("out", "log", "input", "db", "msglog"):
        Path("/var/exim", name).mkdir(parents=True)
    Path("/var/exim/conf").write_text(EXIM)
    subprocess.run(
        [
            "chown",
            "-R",
            "Debian-exim:Debian-exim",
            "/var/exim/out",
            "/var/exim/log",
            "/var/exim/input",
            "/var/exim/db",
            "/var/exim/msglog",
            "/var/exim",
        ],
        check=True,
    )
    subprocess.run(["chown", "root:root", "/var/exim/conf"], check=True)
    tries = [(helo, "", "") for helo in HELOS] + [(f"[{VICTIM}]", ident, "") for ident in IDENTS]
    tries += [(helo, "", "ptr.example") for helo in HELOS] + [
        ("h.example", ident, "ptr.example") for ident in IDENTS
    ]
    tries += [(f"[{VICTIM}]", "x", name) for name in NAMES]
    for client in (CLIENT, "2001:db8::66"):
        for helo, ident, name in tries:
            options = ["-oMa", client, "-oMt", ident or "x", *(["-oMs", name] if name else [])]
            talk = [
                f"EHLO {helo}",
                "MAIL FROM:<a@b.example>",
                f"RCPT TO:<{RECIPIENT}@example.com>",
                "DATA",
                LETTER.decode() + ".",
                "QUIT",
                "",
            ]
            sent = subprocess.run(
                ["exim4", "-C", "/var/exim/conf", *options, "-odf", "-bs"],
                input="\r\n".join(talk).encode(),
                capture_output=True,
                check=True,
            )
            files = list(Path("/var/exim/out").iterdir())
            if not files:
                print("exim refused", helo[:60], sent.stdout[-300:], file=sys.stderr)
            for file in files:
                yield client, fields(file.read_bytes())
                file.unlink()


def courier() -> Iterator[Entry]:
    """courieresmtpd, to which couriertcpd gives the client by the environment; the field is read
    from the queue."""
    shutil.copytree(UNPACKED / "root/var/lib/courier", "/var/lib/courier")
    Path("/etc/courier/me").write_text("relay.example.com\n")
    for name in ("msgs", "msgq", "tmp", "allfilters", "filters", "track"):
        Path("/var/lib/courier", name).mkdir(exist_ok=True)
    subprocess.run(
        ["chown", "-R", "courier:courier", "/var/lib/courier", "/etc/courier"], check=True
    )
    tries = [(helo, "", "") for helo in HELOS] + [(f"[{VICTIM}]", ident, "") for ident in IDENTS]
    tries += [(f"[{VICTIM}]", "", name) for name in NAMES] + [
        ("h.example", "", name) for name in NAMES
    ]
    for helo, ident, name in tries:
        variables = {
            "TCPREMOTEIP": f"::ffff:{CLIENT}",
            "TCPREMOTEHOST": name,
            "TCPREMOTEINFO": ident,
            "TCPLOCALIP": "::ffff:192.0.2.1",
        }
        variables |= {
            "TCPLOCALPORT": "25",
            "TCPREMOTEPORT": "4444",
            "BOFHSUPPRESSBACKSCATTER": "none",
            "PROTOCOL": "ESMTP",
            "RELAYCLIENT": "",
        }
        with subprocess.Popen(
            ["courieresmtpd"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | variables,
        ) as program:
            assert program.stdin
            assert program.stdout
            talk = [
                b"",
                f"EHLO {helo}".encode(),
                b"MAIL FROM:<a@b.example>",
                b"RCPT TO:<v@other.example>",
                b"DATA",
                LETTER + b".",
            ]
            for line in talk:
                if line:
                    program.stdin.write(line + b"\r\n")
                    program.stdin.flush()
                reply = program.stdout.readline()
                while reply[3:4] == b"-":
                    reply = program.stdout.readline()
                if reply[:1] not in (b"2", b"3"):
                    print("courier refused", helo[:60], reply, file=sys.stderr)
                    break
            program.stdin.close()
        for file in [
            *Path("/var/lib/courier").glob("tmp/*/D*"),
            *Path("/var/lib/courier").glob("msgs/**/D*"),
        ]:
            if file.is_file():
                yield CLIENT, fields(file.read_bytes())
                file.unlink()


def opensmtpd() -> Iterator[Entry]:
    """A daemon that relays to a server of ours."""
    for name in ("lib/opensmtpd/empty", "spool/smtpd/offline"):
        Path("/var", name).mkdir(parents=True)
    os.symlink("/run", "/var/run")
    os.chown("/var/spool/smtpd/offline", 0, ACCOUNTS["opensmtpq"])
    for name, mode in (
        ("lib/opensmtpd/empty", 0o711),
        ("spool/smtpd", 0o711),
        ("spool/smtpd/offline", 0o770),
    ):
        Path("/var", name).chmod(mode)
    Path("/run/conf").write_text(
        'listen on 127.0.0.1 port 2526\naction "on" relay host smtp://127.0.0.1:2527\nmatch from'
        ' any for any action "on"\n'
    )
    received: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 2527))
    threading.Thread(target=_sink, args=(server, received), daemon=True).start()
    with subprocess.Popen(
        ["smtpd", "-d", "-f", "/run/conf"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as program:
        eventually(lambda: socket.socket().connect_ex(("127.0.0.1", 2526)) == 0, what="smtpd")
        for client in (CLIENT, NAMED):
            for helo in HELOS:
                received.clear()
                with Smtp(
                    0,
                    connected=socket.create_connection(
                        ("127.0.0.1", 2526), source_address=(client, 0)
                    ),
                ) as smtp:
                    if smtp.command(f"EHLO {helo}").code != 250:
                        continue
                    smtp.transaction(LETTER, mail_from="a@b.example", recipients=("v@example.com",))
                eventually(lambda: received, what="relayed")
                yield client, fields(received[0])
        program.terminate()


def _sink(server: socket.socket, received: list[bytes]) -> None:
    while True:
        peer, _ = server.accept()
        with peer, peer.makefile("rb") as lines:
            peer.sendall(b"220 sink\r\n")
            for line in lines:
                if line[:4].upper() == b"DATA":
                    peer.sendall(b"354 go\r\n")
                    received.append(b"".join(iter(lines.readline, b".\r\n")))
                peer.sendall(b"250 ok\r\n")


def _identify(pid: int, address: str, answer: list[bytes]) -> None:
    """An ident server (RFC 1413) at the client's address that says what it is told to."""
    with Path(f"/proc/{pid}/ns/net").open("rb") as network:
        namespace._checked(namespace._libc.setns(network.fileno(), namespace.CLONE_NEWNET), "setns")
    server = socket.create_server((address, 113))
    while True:
        peer, _ = server.accept()
        with peer:
            peer.sendall(peer.recv(100).strip() + b" : USERID : UNIX : " + answer[0] + b"\r\n")


@contextmanager
def _asking_sendmail(addresses: dict[str, str]) -> Iterator[sendmail.Sendmail]:
    """A Sendmail that asks for idents, takes any HELO, and knows these host names."""
    sendmail.ADDRESSES.clear()
    sendmail.ADDRESSES.update(dict.fromkeys(addresses, ""))
    template = sendmail.CONFIGURATION
    sendmail.CONFIGURATION = template.replace(
        "`confTO_IDENT', `0'", "`confTO_IDENT', `5s'"
    ).replace(
        "FEATURE(`nocanonify')", "define(`confALLOW_BOGUS_HELO', `True')dnl\nFEATURE(`nocanonify')"
    )
    with private_folder("received") as folder:
        mta = sendmail.Sendmail(folder, filters="")
        assert mta.in_namespace
        with (folder / "hosts").open("a") as hosts:
            hosts.writelines(f"{address} {name}\n" for address, name in addresses.items() if name)
        mta.start()
        try:
            yield mta
        finally:
            mta.stop()


def sendmail_() -> Iterator[Entry]:
    """A real connection from each address, with an ident server there."""
    names = {CLIENT: ""} | {
        f"192.0.2.{67 + number}": name for number, name in enumerate([*NAMES, f"{VICTIM}])", "x(y"])
    }
    with _asking_sendmail(names) as mta:
        assert mta._process
        answer = [b""]
        for address in names:
            threading.Thread(
                target=_identify, args=(mta._process.pid, address, answer), daemon=True
            ).start()
        tries = [(CLIENT, helo, "x") for helo in HELOS] + [
            (CLIENT, f"[{VICTIM}]", ident) for ident in IDENTS
        ]
        tries += [(address, f"[{VICTIM}]", ident) for address in names for ident in ("", "helo=x")]
        for number, (address, helo, ident) in enumerate(tries):
            answer[0] = ident.encode()
            with mta.connect(address) as smtp:
                if smtp.command(f"EHLO {helo}").code != 250:
                    print("sendmail refused", helo[:60], file=sys.stderr)
                    continue
                reply = smtp.transaction(
                    LETTER, mail_from="a@b.example", recipients=(f"v{number}@test.example",)
                )
                assert reply.code == 250, reply
            yield address, fields(mta.delivered(f"v{number}"))


def postfix() -> Iterator[Entry]:
    """XCLIENT says who the client is; certificates are real ones, made here."""
    with private_folder("received") as folder:
        certificate(folder / "server", "mx.test.example")
        extra = {
            "smtpd_tls_security_level": "may",
            "smtpd_tls_cert_file": f"{folder}/server",
            "smtpd_tls_ask_ccert": "yes",
        }
        extra |= {
            "smtpd_tls_received_header": "yes",
            "smtpd_sasl_authenticated_header": "yes",
            "smtpd_sasl_auth_enable": "no",
        }
        with private_postfix(extra=extra) as mta:
            tries = [(helo, "[UNAVAILABLE]", "", "") for helo in HELOS] + [
                (f"[{VICTIM}]", name, "", "") for name in NAMES
            ]
            tries += [
                (f"[{VICTIM}]", "ptr.example", "", login) for login in (*IDENTS[1:], "x) by q (")
            ]
            tries += [("h.example", "[UNAVAILABLE]", name, "") for name in COMMON_NAMES]
            for number, (helo, name, common, login) in enumerate(tries):
                with Smtp(mta.port) as smtp:
                    if common:
                        smtp.command("EHLO x")
                        assert smtp.command("STARTTLS").code == 220
                        _encrypt(smtp, folder / "client", common)
                    smtp.command("EHLO x")
                    given = (
                        f" LOGIN={login.encode().hex('+').join(['+', '']) if login else ''}"
                        if login
                        else ""
                    )
                    reply = smtp.command(
                        f"XCLIENT ADDR={CLIENT}"
                        f" NAME={_xtext(name)}{given and ' LOGIN=' + _xtext(login)}"
                    )
                    if reply.code != 220 or smtp.command(f"EHLO {helo}").code != 250:
                        print("postfix refused", helo[:60], name, login, reply, file=sys.stderr)
                        continue
                    sent = smtp.transaction(
                        LETTER, mail_from="a@b.example", recipients=(f"v{number}@test.example",)
                    )
                    assert sent.code == 250, sent
                yield CLIENT, fields(mta.delivered(f"v{number}"))


def _xtext(text: str) -> str:
    """RFC 3461 4: what may not stand as it is, in hexadecimal."""
    return (
        text
        if text == "[UNAVAILABLE]"
        else "".join(
            chr(o) if 33 <= o <= 126 and o not in b"+=" else f"+{o:02X}" for o in text.encode()
        )
    )


def _encrypt(smtp: Smtp, file: Path, common: str) -> None:
    certificate(file, common)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(file)
    smtp.socket = context.wrap_socket(smtp.socket)
    smtp._file = smtp.socket.makefile("rb")


def certificate(file: Path, common: str) -> None:
    """A self-signed certificate and its key in one file."""
    subject = "/CN=" + common.replace("\\", "\\\\").replace("/", "\\/")
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        subject,
        "-keyout",
        f"{file}.key",
        "-out",
        f"{file}.crt",
    ]
    subprocess.run(make, check=True, capture_output=True)
    file.write_bytes(Path(f"{file}.key").read_bytes() + Path(f"{file}.crt").read_bytes())


PROGRAMS: dict[str, tuple[Callable[[], Iterator[Entry]], tuple[str, ...]]] = {
    "exim": (exim, ("exim4-daemon-light",)),
    "courier": (courier, ("courier-mta",)),
    "opensmtpd": (opensmtpd, ("opensmtpd",)),
    "sendmail": (sendmail_, ()),
    "postfix": (postfix, ()),
}


def record(name: str) -> None:
    """All of one program's fields, in the order of the tries, each once."""
    found = dict.fromkeys(PROGRAMS[name][0]())
    text = (
        f"# Received fields that {name} wrote (tests/live/record_received.py): the client's real"
        " address, then the value.\n".encode()
    )
    text += b"".join(b"\n@ " + address.encode() + b"\n" + value + b"\n" for address, value in found)
    (VECTORS / f"received-{name}.txt").write_bytes(text)
    print(f"{name}: {len(found)} fields")


def main() -> None:
    if sys.argv[1:2] == ["--inside"]:
        lay_over()
        record(sys.argv[2])
        return
    for name in sys.argv[1:] or PROGRAMS:
        packages = PROGRAMS[name][1]
        if not packages:
            record(name)
            continue
        unpack(*packages)
        inside = [sys.executable, "-m", "live.record_received", "--inside", name]
        subprocess.run(
            ["unshare", "-mnu", "--pid", "--fork", "--kill-child", "--mount-proc", *inside],
            check=True,
        )


if __name__ == "__main__":
    main()
