"""The readers of other people: each reads a folder of report mails and says what it found, by
report id. What it drops is not there."""

from __future__ import annotations

import ast
import email
import json
import os
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from live.place import REPOSITORY, library_path
from live.postgres import private_postgres
from readers.shapes import Seen

PLACE = REPOSITORY / ".test" / "report_readers"
ROOT = PLACE / "root"
Found = dict[str, list[Seen]]
PERL = {
    "PERL5LIB": ":".join(
        map(
            str,
            (
                ROOT / "usr/share/perl5",
                *ROOT.glob("usr/lib/*/perl5/*"),
                *ROOT.glob("usr/lib/*/perl5"),
            ),
        )
    )
}


class Program(NamedTuple):
    """One reader: a name, how it was got, its version, and what reads."""

    name: str
    version: Callable[[], str]
    read: Callable[[Path], Found]


def run(command: Sequence[str | Path], folder: Path, **environment: str) -> str:
    """The output of a program, which may fail: what it has read until then counts."""
    libraries = {"LD_LIBRARY_PATH": ":".join([*map(str, ROOT.glob("usr/lib/*-linux-gnu")),
        library_path().get("LD_LIBRARY_PATH", "")])}  # fmt: skip
    done = subprocess.run(
        [str(word) for word in command],
        env=os.environ | PERL | libraries | environment,
        cwd=folder,
        capture_output=True,
        check=False,
        timeout=300,
    )
    return done.stdout.decode("utf-8", "replace")


def unpacked(package: str) -> Callable[[], str]:
    def found() -> str:
        lines = (line.split("\t") for line in (PLACE / "versions").read_text().splitlines())
        return dict(line for line in lines if len(line) == 2)[package]

    return found


def installed(package: str) -> Callable[[], str]:
    def found() -> str:
        [info] = (PLACE / "python").glob(f"{package.replace('-', '_')}-*.dist-info")
        return info.name.removesuffix(".dist-info").rpartition("-")[2]

    return found


# --- each reader ----------------------------------------------------------------------------------


def by_parsedmarc(folder: Path) -> Found:
    program = Path(sys.executable).with_name("parsedmarc")
    mails = sorted(map(str, folder.glob("*.eml")))
    reports = json.loads(run([program, "--offline", *mails], folder) or "{}")
    return {
        report["report_metadata"]["report_id"]: [
            Seen(
                record["source"]["ip_address"],
                record["count"],
                record["policy_evaluated"]["disposition"],
                record["policy_evaluated"]["dkim"] == "pass",
                record["policy_evaluated"]["spf"] == "pass",
                record["identifiers"]["header_from"],
                next((one["domain"] for one in record["auth_results"]["spf"]), ""),
                next((one["domain"] for one in record["auth_results"]["dkim"]), ""),
            )
            for record in report["records"]
        ]
        for report in reports.get("aggregate_reports", [])
    }


MAIL_DMARC = """
use strict; use Mail::DMARC::Report::Receive;
for my $file (@ARGV) {
    my $receive = Mail::DMARC::Report::Receive->new;
    eval { $receive->from_file($file); 1 } or print STDERR "$file: $@\\n";
}
"""
MAIL_DMARC_ROWS = """
SELECT report.uuid, record.source_ip, record.count, record.disposition, record.dkim, record.spf,
    (SELECT domain FROM domain WHERE id = record.header_from_did),
    (SELECT domain FROM report_record_spf AS spf JOIN domain ON domain.id = spf.domain_id
        WHERE spf.report_record_id = record.id),
    (SELECT domain FROM report_record_dkim AS dkim JOIN domain ON domain.id = dkim.domain_id
        WHERE dkim.report_record_id = record.id ORDER BY dkim.rowid LIMIT 1)
FROM report JOIN report_record AS record ON record.report_id = report.id
"""


def by_mail_dmarc(folder: Path) -> Found:
    (folder / "mail-dmarc.ini").write_text(
        f"[report_store]\nbackend = SQL\ndsn = dbi:SQLite:dbname={folder}/reports.sqlite\n"
        "user =\npass =\n[dns]\npublic_suffix_list = /dev/null\n"
    )
    mails = sorted(map(str, folder.glob("*.eml")))
    configuration = {"MAIL_DMARC_CONFIG_FILE": str(folder / "mail-dmarc.ini")}
    run(["perl", "-e", MAIL_DMARC, *mails], folder, **configuration)
    found: Found = defaultdict(list)
    if not (folder / "reports.sqlite").exists():
        return found
    database = sqlite3.connect(folder / "reports.sqlite")
    database.text_factory = bytes  # addresses are packed
    for uuid, source, count, *words in database.execute(MAIL_DMARC_ROWS):
        done, dkim, spf, author, checked, signer = ((word or b"").decode() for word in words)
        found[uuid.decode()].append(
            Seen(
                str(ip_address(source)), count, done, dkim == "pass", spf == "pass", author,
                checked, signer,
            )
        )  # fmt: skip
    database.close()
    return found


def by_dmarcts(folder: Path) -> Found:
    """With a PostgreSQL of its own, as its documentation describes."""
    script = ROOT / "usr/sbin/dmarcts-report-parser"
    found: Found = defaultdict(list)
    with private_postgres() as server:
        (folder / "dmarcts-report-parser.conf").write_text(
            f"$dbtype = 'Pg'; $dbname = 'postgres'; $dbuser = 't'; $dbpass = '';\n"
            f"$dbhost = '127.0.0.1'; $dbport = '{server.port}'; $imapreadfolder = 'none'; 1;\n"
        )
        text = script.read_text().replace(
            "/usr/share/dmarcts-report-parser", str(ROOT / "usr/share/dmarcts-report-parser")
        )
        (folder / "dmarcts").write_text(text)
        run(["perl", folder / "dmarcts", "-e", *sorted(folder.glob("*.eml"))], folder)
        rows = (
            "SELECT reportid, ip, ip6, rcount, disposition, dkim_align, spf_align,"
            " identifier_hfrom, spfdomain, dkimdomain FROM report JOIN rptrecord USING (serial)"
        )
        with psycopg.connect(server.url) as connection:
            for (
                identity,
                v4,
                v6,
                count,
                done,
                dkim,
                spf,
                author,
                checked,
                signers,
            ) in connection.execute(rows).fetchall():
                address = int(v4) if v4 is not None else bytes(v6)
                seen = Seen(
                    str(ip_address(address)), count, done, dkim == "pass", spf == "pass",
                    author, checked or "", (signers or "").partition("/")[0],
                )  # fmt: skip
                found[identity].append(seen)
    return found


def by_dmarc_cat(folder: Path) -> Found:
    """It prints a table for each file: client, count and From, then what it makes of the results of
    the last signature and SPF alone."""
    found: Found = {}
    for mail in sorted(folder.glob("*.eml")):
        name, content = attachment(mail)
        file = folder / name
        file.write_bytes(content)
        text = run([ROOT / "usr/bin/dmarc-cat", "-N", file], folder)
        file.unlink()
        _, heading, table = text.partition("\nIP ")
        rows = [line.split() for line in table.splitlines()[1:] if line.strip()]
        if heading:
            found[name.split("!")[4].partition(".")[0]] = [
                Seen(row[0], int(row[1]), None, None, None, row[2], None, None) for row in rows
            ]
    return found


PYTHON = """
import email, email.policy, sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
for name in sys.argv[1:]:
    mail = email.message_from_bytes(Path(name).read_bytes(), policy=email.policy.default)
    try:
        print(repr(read(mail)))
    except Exception as error:
        print(name, type(error).__name__, error, file=sys.stderr)
"""
EXPORTER = """
from dmarc_metrics_exporter.deserialization import (
    convert_to_events, get_aggregate_report_from_email
)
def read(mail):
    [report] = get_aggregate_report_from_email(mail)
    rows = [
        (None, one.count, one.result.disposition.value, one.result.dkim_aligned,
         one.result.spf_aligned, one.meta.from_domain, one.meta.spf_domain, one.meta.dkim_domain)
        for one in convert_to_events(report)
    ]
    return report.report_metadata.report_id, rows
"""
DMARC_REPORT = """
from dmarc_report.parser import DMARCParser
def read(mail):
    [part] = mail.iter_attachments()
    report = DMARCParser.parse_bytes(part.get_content())
    rows = [
        (one.source_ip, one.count, one.policy_evaluated.disposition.value,
         one.policy_evaluated.dkim.value == "pass", one.policy_evaluated.spf.value == "pass",
         one.identifiers.header_from,
         one.auth_results.spf[0].domain if one.auth_results.spf else "",
         one.auth_results.dkim[0].domain if one.auth_results.dkim else "")
        for one in report.records
    ]
    return report.report_metadata.report_id, rows
"""


def by_python(reader: str) -> Callable[[Path], Found]:
    def read(folder: Path) -> Found:
        mails = sorted(map(str, folder.glob("*.eml")))
        path = {"PYTHONPATH": str(PLACE / "python")}
        text = run([sys.executable, "-c", reader + PYTHON, *mails], folder, **path)
        reports = map(ast.literal_eval, text.splitlines())
        return {identity: [Seen(*one) for one in rows] for identity, rows in reports}

    return read


def attachment(mail: Path) -> tuple[str, bytes]:
    """File name and content of the report in a mail."""
    message: Any = email.message_from_bytes(mail.read_bytes())
    [part] = [each for each in message.walk() if each.get_filename()]
    return part.get_filename(), part.get_payload(decode=True)


PROGRAMS: Mapping[str, Program] = {
    program.name: program
    for program in (
        Program("parsedmarc", lambda: version("parsedmarc"), by_parsedmarc),
        Program("Mail::DMARC", unpacked("libmail-dmarc-perl"), by_mail_dmarc),
        Program("dmarcts-report-parser", unpacked("dmarcts-report-parser"), by_dmarcts),
        Program("dmarc-cat", unpacked("dmarc-cat"), by_dmarc_cat),
        Program("dmarc-metrics-exporter", installed("dmarc-metrics-exporter"), by_python(EXPORTER)),
        Program("dmarc-report", installed("dmarc-report"), by_python(DMARC_REPORT)),
    )
}
