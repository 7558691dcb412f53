"""The start, up to the supervisor's loop: privileges, limits, spool and store, and the lines that
tell an administrator how the daemon runs."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from dmarc_milter.checks import configuration, limits
from dmarc_milter.checks.remedies import placed
from dmarc_milter.checks.rules import rules
from dmarc_milter.config import DEFAULT_PATH, Config, ConfigError, load, root_files
from dmarc_milter.config.instance import instance
from dmarc_milter.config.paths import spool_path
from dmarc_milter.config.sources import files_of_conf_d
from dmarc_milter.core.check_finding import Finding
from dmarc_milter.daemon.dns_probe import ask
from dmarc_milter.daemon.supervisor import Parts, Supervisor, no_jobs
from dmarc_milter.daemon.wiring import Commands, build, jobs
from dmarc_milter.daemon.worker import CannotBuild, Prepare
from dmarc_milter.dns.suffix_list import Suffixes, SuffixListError, latest_suffixes
from dmarc_milter.ledger import at_start
from dmarc_milter.ledger.errors import SpoolError
from dmarc_milter.ledger.ownership import why_not
from dmarc_milter.ledger.spool.file import prepare as prepare_spool
from dmarc_milter.ledger.store.database import connect
from dmarc_milter.ledger.store.status import obstacle
from dmarc_milter.mta import sendmail_review, sendmail_rewriting
from dmarc_milter.process import privileges, sockets
from dmarc_milter.session import choose_library
from dmarc_milter.telemetry.log import Log, complain, open_log

NOFILE = 65536
"""Descriptors that the daemon allows itself."""
TEMPORARY_SPOOL_ERRORS = ("full", "locked", "io")
"""What a spool recovers from by itself."""


def prepare_storage(config: Config) -> tuple[str, ...]:
    """Makes or upgrades the spool. Returns what is wrong with it or with the store's place, a line
    each; raises CannotBuild where nothing could ever be recorded.

    A disk that is full or failing must not stop mail: it is reported, and the spool works again
    when the disk does.
    """
    problems: list[str] = []
    try:
        prepare_spool(spool_path(config))
    except SpoolError as error:
        if error.kind not in TEMPORARY_SPOOL_ERRORS:
            where = "; [store] must lie where this account may write"
            raise CannotBuild(
                f"spool: {error}" + where * (error.kind == "refused" and where not in str(error))
            ) from None
        problems.append(f"spool: {error}: mail is counted as unrecorded until that is mended")
    if config.store.url.startswith("sqlite:///"):
        path = Path(config.store.url.removeprefix("sqlite:///"))
        reason = obstacle(path) or why_not(path, "store")
    else:
        reason = at_start.problem(config)
    problems += [f"{reason}: messages wait in the spool until that is mended"] if reason else []
    return tuple(problems)


def startup_lines(config: Config, file: Path = DEFAULT_PATH) -> tuple[str, ...]:
    """What else can be known to prevent serving, found before the first worker is forked; then the
    lines to greet with. `file`: the configuration's."""
    try:
        suffixes, stale = latest_suffixes(config.dmarc.suffix_list, datetime.now(UTC).date())
    except SuffixListError as error:
        raise ConfigError(f"[dmarc] suffix_list: {error}") from None
    url = config.store.url
    return (
        f"mode: {_mode(config)}",
        f"socket: {config.milter.socket}",
        *_library(config),
        # Without what is secret in it.
        f"store: {url if url.startswith('sqlite:') else connect(url).name}",
        f"reports: {_reports(config)}",
        *_limits(config),
        *((f"warning: {stale}",) if stale else ()),
        *(
            f"WARNING: {finding.text}"
            for finding in about_sendmail(config)
            if finding.level == "error"
        ),
        *_advice(config, file, suffixes),
    )


def _advice(config: Config, file: Path, suffixes: Suffixes) -> Iterator[str]:
    """What is an error in full, of the rest how much there is: `doctor` explains it."""
    found = (
        *configuration.mode(config),
        *rules(config, suffixes, datetime.now(UTC).date()),
        *configuration.exposed_listeners(config, instance(file)),
    )
    yield from (f"WARNING: {one.text}" for one in found if one.level == "error")
    if number := sum(one.level == "warning" for one in found):
        doctor = placed("dmarc-milter doctor", config=None if file == DEFAULT_PATH else file)
        yield f"{number} finding{'' if number == 1 else 's'}; run {doctor}"


def _library(config: Config) -> tuple[str, ...]:
    """One line where not the configured library serves."""
    choice = choose_library.choose(config.milter.library)
    return (f"library: {choice.library}, because {choice.because}",) if choice.because else ()


def _limits(config: Config) -> tuple[str, ...]:
    """One line where the host allows less than the configuration asks for."""
    found = [f"{one.text} ({one.remedy})" for one in limits.findings(config, limits.read())]
    return (f"warning: limits: {'; '.join(found)}",) if found else ()


def _mode(config: Config) -> str:
    if config.policy.enforce:
        return "enforce"
    return (
        "MONITOR: nothing is refused or quarantined (but 550 for more than"
        f" {config.limits.removable_fields} forged fields, [limits] removable_fields); see"
        " [policy] enforce"
    )


def _reports(config: Config) -> str:
    options = config.reporting
    if not options.is_on:
        return "OFF until [reporting] org_name and email are set"
    return (
        f"aggregate{' and failure' if options.failure_reports else ''}, from {options.email}"
        f" through {options.smtp}"
    )


def about_sendmail(config: Config) -> tuple[Finding, ...]:
    """What a Sendmail that this milter is attached to does to From after us; nothing where there is
    none."""
    path = Path(config.authentication.sendmail_cf)
    cf = sendmail_rewriting.read(path)
    return (
        tuple(sendmail_rewriting.findings(cf, str(path)))
        if cf is not None and cf.has_filter(sendmail_review.NAME)
        else ()
    )


def raise_file_limit() -> None:
    """Allow NOFILE descriptors: libmilter's listener spins without a pause where they run out."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = NOFILE if hard == resource.RLIM_INFINITY else min(NOFILE, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def serve(path: Path, commands: Commands | None) -> int:
    """`dmarc-milter serve`: until SIGTERM. `commands` are what the jobs run; None: timers run them.
    Raises ConfigError; says in one line what else prevents the start (exit code 1)."""
    config = load(path)
    parts = Parts(
        build,
        (lambda config: jobs(path, config, commands)) if commands else no_jobs,
        ask,
        prepare_storage,
    )
    return supervise(path, config, parts, lambda: startup_lines(config, path))


def _changeable(path: Path) -> Iterator[str]:
    """Of the file and of what conf.d adds (root_files.changeable)."""
    for file in (path, *files_of_conf_d(path)):
        yield from root_files.changeable(file)


def supervise(path: Path, config: Config, parts: Parts, startup_lines: Prepare = lambda: ()) -> int:
    """Run the daemon with these parts. What `startup_lines` finds wrong prevents the start; its
    lines are printed. Raises ConfigError."""
    log = open_log(config)
    try:
        settings = tuple(f"warning: {setting}" for setting in _changeable(path))
        privileges.drop_privileges(config.milter.user)
        raise_file_limit()
        lines = (*startup_lines(), *privileges.warnings(config), *settings)
        supervisor = Supervisor(path, config, parts)
    except (
        privileges.CannotDropPrivileges,
        sockets.CannotListen,
        CannotBuild,
    ) as error:
        complain(str(error))
        return 1
    finally:
        log.close()
    _greet(lines, log)
    return supervisor.run()


def _greet(lines: Iterable[str], log: Log) -> None:
    """To whoever looks at the start; events of the log where that takes nothing else."""
    if log.events_only:
        for line in lines:
            log.write(
                "warning" if line.lower().startswith("warning") else "info",
                "start",
                {"text": line.strip()},
            )
        return
    with contextlib.suppress(OSError):  # whoever started us may not listen any more
        for line in lines:
            print(line, flush=True)
