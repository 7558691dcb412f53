"""Copies of what was sent: in a folder, or at an address (`[reporting] copy_to`)."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from dmarc_milter.reporting.context import LOG, ReportContext
from dmarc_milter.reporting.smtp import Sent

MODE = 0o640


def keep(report_id: str, recipient: str, message: bytes, context: ReportContext) -> None:
    """Keep a mail that its recipient has taken. A copy that cannot be kept is logged, and changes
    nothing of the report. Never raises for what the file system or the server does."""
    target = context.options.copy_to
    if target.startswith("/"):
        _in_folder(Path(target), report_id, recipient, message, context.now)
    elif target:
        outcome = context.mailer.send(context.bounces, target, message)
        if not isinstance(outcome, Sent):
            LOG.warning("report %s: no copy to %s: %s", report_id, target, outcome.reply)


def _in_folder(folder: Path, report_id: str, recipient: str, message: bytes, now: int) -> None:
    """One file for each mail. Its name is made of the day, the id and a hash of the address: of
    nothing that a stranger chose."""
    day = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
    whom = sha256(recipient.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    name = f"{day}-{report_id}-{whom}.eml"
    try:
        descriptor = os.open(
            folder / f".{name}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, MODE
        )
        with os.fdopen(descriptor, "wb") as file:
            file.write(message)
        (folder / f".{name}.new").replace(folder / name)
    except OSError as error:
        LOG.warning("report %s: no copy in %s: %s", report_id, folder, error.strerror)
