"""The programs of others that do the same: rspamd with nothing but these checks, rspamd as Debian
installs it, OpenDKIM then OpenDMARC. `make bench-peers` unpacks them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.contenders import AUTHSERV_ID, Contender, Start, Where, spelled
from bench.load import Address, Cost
from bench.running import process
from fakes.daemon import ROOT

PEERS = ROOT / ".test/peers"
RSPAMD, RSPAMD_WHOLE, CHAIN = "rspamd", "rspamd, whole", "C chain"
"""The C chain is OpenDKIM, then OpenDMARC."""
SUFFIX_LIST = "/usr/share/publicsuffix/public_suffix_list.dat"
ACCOUNT = "nobody"
FOLDERS = ("RUNDIR", "CONFDIR", "LOCAL_CONFDIR", "DBDIR", "LOGDIR")
WORKER = """
worker "rspamd_proxy" {
    bind_socket = "%(socket)s"; milter = true; timeout = 120s; count = 2;
    upstream "local" { default = yes; self_scan = yes; }
}
"""
CHECKS = """
options {
    pidfile = "$RUNDIR/pid"; control_socket = "$RUNDIR/control"; hs_cache_dir = "$RUNDIR";
    url_tld = "$RUNDIR/tlds";
    filters = "dkim"; local_addrs = "192.0.2.255"; disable_monitoring = true; history_file = "";
    dns { nameserver = ["%(nameserver)s"]; timeout = 5s; retransmits = 2; }
}
logging { type = "file"; filename = "$RUNDIR/log"; level = "warning"; }
actions { reject = null; }
modules {
    path = "$PLUGINSDIR/spf.lua"; path = "$PLUGINSDIR/dmarc.lua"; path = "$PLUGINSDIR/arc.lua";
    path = "$PLUGINSDIR/milter_headers.lua";
}
lua = "$RUNDIR/none.lua";
spf { } dkim { } dmarc { } arc { }
milter_headers { use = ["authentication-results"]; }
"""
WHOLE = """
.include "$CONFDIR/common.conf"
options {
    .include "$CONFDIR/options.inc"
    .include(priority=1,duplicate=merge) "$LOCAL_CONFDIR/local.d/options.inc"
}
logging { type = "file"; filename = "$RUNDIR/log"; level = "warning"; }
lang_detection { languages = "$SHAREDIR/languages"; stop_words = "$SHAREDIR/languages/stop_words"; }
"""
ASKING = ("rbl", "hfilter", "asn", "mx_check", "emails", "whitelist")
OVERRIDES = {
    "local.d/options.inc": """
        pidfile = "$RUNDIR/pid"; control_socket = "$RUNDIR/control"; hs_cache_dir = "$RUNDIR";
        url_tld = "$RUNDIR/tlds"; local_addrs = "192.0.2.255"; disable_monitoring = true;
        history_file = "";
        dns { nameserver = ["%(nameserver)s"]; timeout = 5s; retransmits = 2; }
    """,
    "local.d/actions.conf": "reject = null; greylist = null; add_header = null;",
    "local.d/milter_headers.conf": 'use = ["authentication-results"];',
    "override.d/fuzzy_check.conf": """
        enabled = false; rule "rspamd.com" { servers = "127.0.0.1:9"; }
    """,
    **dict.fromkeys(
        (f"override.d/{name}.conf" for name in ASKING),
        "enabled = false;",
    ),
}
"""As installed, but for what asks the world (fuzzy hashes, lists, other look-ups than of the four
methods) or has a file elsewhere, for the list of top-level domains, which takes a minute to
compile, and for the actions: mail of a made-up corpus is not to be refused for its looks."""


@contextmanager
def rspamd(where: Where, nameserver: str) -> Iterator[Contender]:
    """Only what is compared: SPF, DKIM, ARC, DMARC and the field, in two processes of its proxy
    worker; no rules, no Redis."""
    with _rspamd(where, nameserver, RSPAMD, CHECKS, where.folder) as contender:
        yield contender


@contextmanager
def rspamd_whole(where: Where, nameserver: str) -> Iterator[Contender]:
    """With the modules and rules that Debian's package switches on, but for those that ask the
    world; no Redis."""
    with _rspamd(where, nameserver, RSPAMD_WHOLE, WHOLE, PEERS / "etc/rspamd") as contender:
        yield contender


@contextmanager
def _rspamd(
    where: Where, nameserver: str, name: str, config: str, config_folder: Path
) -> Iterator[Contender]:
    address = where.address("rspamd")
    folder = where.folder
    socket = f"{address} mode=0666" if isinstance(address, str) else f"{address[0]}:{address[1]}"
    (folder / "rspamd.conf").write_text(
        config % {"nameserver": nameserver} + WORKER % {"socket": socket}
    )
    for file, text in OVERRIDES.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(text % {"nameserver": nameserver})
    (folder / "tlds").write_text("com\nexample\nnet\norg\ntest\n")
    (folder / "none.lua").touch()
    shutil.chown(folder, ACCOUNT)
    share = PEERS / "usr/share/rspamd"
    places = dict.fromkeys(FOLDERS, folder) | {
        "CONFDIR": config_folder,
        "SHAREDIR": share,
        "PLUGINSDIR": share / "plugins",
        "LUALIBDIR": share / "lualib",
        "RULESDIR": share / "rules",
    }
    program, file = str(PEERS / "usr/bin/rspamd"), f"{folder}/rspamd.conf"
    command = [program, "-f", "-u", ACCOUNT, "-g", "nogroup", "-c", file]
    command += [word for key, place in places.items() for word in ("--var", f"{key}={place}")]
    libraries = f"{PEERS}/usr/lib/{os.uname().machine}-linux-gnu:{PEERS}/usr/lib/rspamd"
    with process(command, address, env=os.environ | {"LD_LIBRARY_PATH": libraries}) as pid:
        yield Contender(name, (address,), Cost([pid]))


@contextmanager
def chain(where: Where, nameserver: str) -> Iterator[Contender]:
    """OpenDKIM verifies and writes its field; OpenDMARC reads that, checks SPF itself and keeps a
    history file."""
    one, two = where.address("opendkim"), where.address("opendmarc")
    folder = where.folder
    (folder / "opendkim.conf").write_text(
        f"Mode v\nUMask 000\nSocket {_socket(one)}\nBackground no\nSyslog no\nAuthservID"
        f" {AUTHSERV_ID}\nAlwaysAddARHeader yes\nNameservers"
        f" {nameserver.partition(':')[0]}\nInternalHosts {folder}/none\nOn-BadSignature"
        f" accept\nUserID {ACCOUNT}\n"
    )
    (folder / "none").write_text("192.0.2.255\n")
    (folder / "opendmarc.conf").write_text(
        f"UMask 000\nSocket {_socket(two)}\nBackground no\nSyslog no\nAuthservID"
        f" {AUTHSERV_ID}\nTrustedAuthservIDs {AUTHSERV_ID}\nSPFSelfValidate yes\nSPFIgnoreResults"
        f" yes\nHistoryFile {folder}/history\nPublicSuffixList {SUFFIX_LIST}\nIgnoreHosts"
        f" {folder}/none\nRejectFailures no\nUserID {ACCOUNT}\n"
    )
    shutil.chown(folder, ACCOUNT)
    libraries = {
        "LD_LIBRARY_PATH": f"{PEERS}/usr/lib/{os.uname().machine}-linux-gnu:{PEERS}/usr/lib"
    }
    with ExitStack() as stack:
        pids = [
            stack.enter_context(
                process(
                    [str(PEERS / "usr/sbin" / name), "-f", option, f"{folder}/{name}.conf"],
                    address,
                    env=os.environ | libraries,
                )
            )
            for name, option, address in (("opendkim", "-x", one), ("opendmarc", "-c", two))
        ]
        yield Contender(CHAIN, (one, two), Cost(pids))


def _socket(address: Address) -> str:
    return spelled(address).replace("unix:", "local:")


def unpacked() -> dict[str, Start]:
    """The peers that are there."""
    programs: dict[str, tuple[str, Start]] = {
        RSPAMD: ("usr/bin/rspamd", rspamd),
        RSPAMD_WHOLE: ("usr/bin/rspamd", rspamd_whole),
        CHAIN: ("usr/sbin/opendkim", chain),
    }
    return {
        name: start for name, (program, start) in programs.items() if (PEERS / program).exists()
    }
