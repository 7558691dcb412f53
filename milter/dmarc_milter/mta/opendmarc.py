"""An opendmarc.conf (OpenDMARC 1.3 and 1.4) as our configuration: what has a counterpart is
translated, all else gets a note."""

from __future__ import annotations

import re

from dmarc_milter.core.toml import toml
from dmarc_milter.mta.opendmarc_options import TRANSLATED, Draft, Option, Read, without_controls

MAX_OPTIONS = 1000
SUPERVISED = "the supervisor and systemd do this"
OWN_SPF = "SPF is always evaluated here, never taken from a header field"
JOURNAL = "one line per message goes to standard error, which systemd's journal keeps; see [log]"
NOTES = {
    "authservidwithjobid": (
        "no id is written into the field; forged fields are removed with one or without"
    ),
    "autorestart": SUPERVISED,
    "autorestartcount": SUPERVISED,
    "autorestartrate": SUPERVISED,
    "background": "`dmarc-milter serve` stays in the foreground, as systemd wants it",
    "basedirectory": "relative names of files were read from there by this translation",
    "changerootdirectory": "the systemd unit confines the daemon more tightly",
    "copyfailuresto": (
        'no recipient is added; `dmarc-milter why` and quarantine_action = "hold" are for looking'
        " at failures"
    ),
    "domainwhitelistsize": "there is no such limit",
    "enablecoredumps": "see LimitCORE= of systemd",
    "failurereportsbcc": "no copies are sent; `dmarc-milter report list` shows what was",
    "failurereportsonnone": "failure reports follow the record's ruf and fo, whatever its policy",
    "ignoremailto": (
        "mail to [reporting] email and bounce_address is never counted; other addresses are"
    ),
    "milterdebug": "see [log] level",
    "pidfile": "systemd tracks the process itself",
    "recordallmessages": "every message that is evaluated is recorded",
    "reportcommand": "reports are sent by SMTP: see [reporting] smtp",
    "softwareheader": "no such field is written",
    "spfignoreresults": OWN_SPF,
    "spfselfvalidate": OWN_SPF,
    "syslog": JOURNAL,
    "syslogfacility": JOURNAL,
    "syslogname": JOURNAL,
}
"""Options without a counterpart, and what there is instead."""
BOOLEANS = frozenset(
    {
        *("authservidwithjobid", "autorestart", "background", "enablecoredumps", "failurereports"),
        *("failurereportsonnone", "holdquarantinedmessages", "ignoreauthenticatedclients"),
        *("recordallmessages", "rejectfailures", "rejectmultivaluefrom", "requiredheaders"),
        *("softwareheader", "spfignoreresults", "spfselfvalidate", "syslog"),
    }
)
KNOWN = BOOLEANS | NOTES.keys() | TRANSLATED.keys()
TRUTH = frozenset({"true", "false", "yes", "no", "t", "f", "y", "n", "1", "0"})


OTHER_PROGRAMS = frozenset(
    [
        "canonicalization",
        "domain",
        "externalignorelist",
        "internalhosts",
        "keyfile",
        "keytable",
        "mode",
        "oversignheaders",
        "selector",
        "signaturealgorithm",
        "signingtable",
        "subdomains",
        "trustanchorfile",
    ]
)
"""Options of opendkim.conf(5), whose file shares Socket, Syslog, UserID and others."""


def is_opendmarc(text: str) -> bool:
    """Whether a file is one of OpenDMARC's: it has an option that is known and none of another
    program's, and no assignments; or it is text without any option."""
    given = options(text)
    if not given:
        return not re.search(r"[^\t\r\n\f -~\x80-\uffff]", text)
    return (
        any(option.key in KNOWN for option in given)
        and not any(option.key in OTHER_PROGRAMS for option in given)
        and not any(option.value.startswith("=") for option in given)
    )


def _unreadable(draft: Draft, known: dict[str, Option]) -> None:
    """Values that say neither yes nor no, where OpenDMARC looks at the first letter alone."""
    for option in known.values():
        if option.key in BOOLEANS and option.value.lower() not in TRUTH:
            draft.note(
                f"{option.name} {option.value}".strip(),
                f"neither true nor false; read as {'true' if option.is_true else 'false'}, as"
                " OpenDMARC does: is that what was meant?",
            )


def options(text: str) -> tuple[Option, ...]:
    """Lines `NAME VALUE`; a # starts a comment wherever it stands."""
    found = []
    for line in text.split("\n"):
        words = without_controls(line.partition("#")[0]).split(None, 1)
        if words:
            found.append(Option(words[0], words[1].strip() if len(words) > 1 else ""))
    return tuple(found[:MAX_OPTIONS])


def translate(text: str, name: str, read: Read) -> str:
    """Our configuration file, complete with comments. `name` is the file's; every value in it
    passes `config check`."""
    draft = Draft()
    given = options(text)
    known = {option.key: option for option in given}
    for option in known.values():
        if option.key in TRANSLATED:
            TRANSLATED[option.key](draft, option, read)
        else:
            sentence = NOTES.get(option.key, "is not an option of OpenDMARC 1.4 that is known here")
            draft.note(f"{option.name} {option.value}".strip(), sentence)
    _unreadable(draft, known)
    _policy(draft, known)
    _from_fields(draft, known)
    _defaults(draft, known)
    return _written(draft, name)


def _is_on(known: dict[str, Option], key: str) -> bool:
    return key in known and known[key].is_true


def _policy(draft: Draft, known: dict[str, Option]) -> None:
    """What is done with failures: several options of OpenDMARC make one of ours."""
    reject, hold = _is_on(known, "rejectfailures"), _is_on(known, "holdquarantinedmessages")
    why = (
        f"RejectFailures {'true' if reject else 'false'}, HoldQuarantinedMessages"
        f" {'true' if hold else 'false'}"
    )
    draft.set("policy", "enforce", reject or hold, why)
    if hold:
        draft.set("policy", "quarantine_action", "hold", why)
        if not reject:
            draft.set("policy", "reject_action", "quarantine", why)
            draft.note(why, "what fails p=reject is held too; it was let through")
    if reject:
        draft.set("dmarc", "on_temperror", "tempfail", why)
    if not (reject or hold):
        draft.note(
            why,
            "nothing is refused or quarantined, as before; `dmarc-milter impact` shows what enforce"
            " = true would do",
        )


def _from_fields(draft: Draft, known: dict[str, Option]) -> None:
    """RejectMultiValueFrom and RequiredHeaders."""
    strict = []
    for key in ("rejectmultivaluefrom", "requiredheaders"):
        if _is_on(known, key):
            strict.append(f"{known[key].name} true")
        elif key in known:
            draft.note(
                f"{known[key].name} {known[key].value}",
                "such a From field never gets a pass here: see [policy] malformed_from",
            )
    if strict:
        why = ", ".join(strict)
        draft.set("policy", "malformed_from", "reject", why)
        draft.note(
            why,
            "refuses every From field that is missing, repeated, malformed or names several"
            " domains; other fields are not counted",
        )


def _defaults(draft: Draft, known: dict[str, Option]) -> None:
    """Where the defaults differ, so that nothing changes unseen."""
    if "socket" not in known:
        draft.note(
            "no Socket",
            "OpenDMARC had it on the command line (-p), on Debian in /etc/default/opendmarc: set"
            " [milter] socket to that",
        )
    if not _is_on(known, "ignoreauthenticatedclients"):
        draft.note(
            "IgnoreAuthenticatedClients false", "authenticated clients are never evaluated here"
        )


def _written(draft: Draft, name: str) -> str:
    lines = [
        (
            f"# Translated from {without_controls(name)}. A key that is not here keeps its"
            " default: see"
            " `dmarc-milter config sample`."
        ),
        "",
    ]
    for section in dict.fromkeys(section for section, _ in draft.values):
        lines.append(f"[{section}]")
        for (of, key), (value, why) in draft.values.items():
            if of == section:
                lines += [f"# {why}", f"{key} = {toml(value)}"]
        lines.append("")
    for rule, why in draft.rules:
        lines += [
            f"# {why}",
            "[[policy.rules]]",
            *(f"{key} = {toml(value)}" for key, value in rule.items()),
            "",
        ]
    lines.append("# What was not translated as it was, or differs:")
    for what, sentence in draft.notes:
        lines += [f"# - {what}", f"#     {sentence}"]
    return "\n".join(lines) + "\n"
