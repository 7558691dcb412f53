"""`dmarc-milter setup [--mta postfix|sendmail] [--apply | --remove]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dmarc_milter.cli.main import EXIT_NO, EXIT_OK, add_config

BACKUP = ".before-dmarc-milter"
ROOT = Path("/")
MAIN_CF, SENDMAIL_MC = Path("etc/postfix/main.cf"), Path("etc/mail/sendmail.mc")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        "--mta",
        choices=("postfix", "sendmail"),
        help="the mail server to attach (default: the one that is installed)",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--apply",
        action="store_true",
        help=f"write the lines; the file as it was is kept beside it as *{BACKUP}",
    )
    what.add_argument("--remove", action="store_true", help="take out what --apply wrote")
    parser.add_argument(
        "--socket",
        default="",
        help="`unix`: a UNIX socket where this mail server reaches it and the service may make it,"
        " with the right group (--apply makes the folder and changes the configuration); or a"
        " socket, if the configuration says fd:3",
    )
    parser.add_argument(
        "--main-cf",
        type=Path,
        metavar="FILE",
        help=f"Postfix's main.cf; master.cf is read from the same folder (default /{MAIN_CF})",
    )
    parser.add_argument(
        "--sendmail-mc",
        type=Path,
        metavar="FILE",
        help=f"Sendmail's sendmail.mc (default /{SENDMAIL_MC})",
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=ROOT,
        metavar="FOLDER",
        help="where the mail server's and other filters' files are looked for (default /)",
    )


def run(arguments: argparse.Namespace) -> int:
    from dmarc_milter.cli.setup import mail_server
    from dmarc_milter.cli.setup.files import CannotSetUp
    from dmarc_milter.mta.errors import AttachmentError, PostfixError

    arguments.is_main_cf_given = arguments.main_cf is not None
    arguments.main_cf = arguments.main_cf or arguments.root / MAIN_CF
    arguments.sendmail_mc = arguments.sendmail_mc or arguments.root / SENDMAIL_MC
    try:
        mail_server.run(arguments)
    except (CannotSetUp, AttachmentError, PostfixError) as error:
        print(f"dmarc-milter: {error}", file=sys.stderr)
        return EXIT_NO
    return EXIT_OK
