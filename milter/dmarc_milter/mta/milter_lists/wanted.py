"""What each list of milters should be in the end. Every remedy that changes a list writes the same
one, so that none undoes another, in whatever order they are typed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from dmarc_milter.config.checks import SocketAddress
from dmarc_milter.config.schema_policy import Authentication
from dmarc_milter.mta import earlier_socket, postfix_commands
from dmarc_milter.mta.milter_lists.attached import main_cf_lacks, unreachable
from dmarc_milter.mta.milter_lists.kinds import RIVALS, Installed, Known, known, only_verifies
from dmarc_milter.mta.postfix import MasterCfService, MilterEntry, Postfix

RANKS = {"": 0, "milter-greylist": 1, "OpenDKIM": 3, "dkimpy-milter": 3}
"""Where each stands in smtpd_milters: this milter, what only defers, what filters (2), what
signs."""
LATER = "first give this milter a socket that smtpd can reach (above), then run doctor again"
"""That changes this milter's own element: a list that is written down now would undo it."""
SMTPD, LOCAL = "smtpd_milters", "non_smtpd_milters"


@dataclass(frozen=True)
class MilterLists:
    """Of one Postfix. `earlier`: sockets that this milter has left, whose elements `setup` takes
    out."""

    files: Postfix
    socket: SocketAddress
    installed: Sequence[Installed] = ()
    trust: Authentication | None = None
    earlier: Sequence[SocketAddress] = ()

    def known(self, service: MasterCfService | None, name: str = SMTPD) -> tuple[Known, ...]:
        """The elements as they stand."""
        return known(self.files, service, self.socket, self.installed, name)

    def leaves(self, one: Known) -> bool:
        """Whether it goes, from wherever it is named: it judges again. An OpenDKIM that only
        verifies does no harm where our own users' mail alone passes it."""
        return one.kind in RIVALS or (
            one.kind == "OpenDKIM"
            and earlier_socket.is_at(one.entry.endpoint, self.files, self._verifiers)
        )

    @cached_property
    def _verifiers(self) -> tuple[SocketAddress, ...]:
        """Where OpenDKIMs listen that mail from outside passes and that only verify."""
        return tuple(
            there
            for service, name in self._places()
            if name == SMTPD and (service is None or not service.is_submission)
            for one in self.known(service)
            if only_verifies(one)
            for there in earlier_socket.addresses(one.entry.endpoint, self.files)
        )

    def wanted(self, service: MasterCfService | None = None) -> tuple[MilterEntry, ...]:
        """smtpd_milters: this milter, added where it is missing, what filters, what signs, without
        what leaves. A list that rightly has not this milter keeps its order."""
        kept = [one for one in self.known(service) if self._stays(one)]
        if all(one.kind for one in kept):
            if not self.lacks_ours(service):
                return tuple(one.entry for one in kept)
            below = earlier_socket.below_queue(self.files, self.socket)
            kept = [Known(postfix_commands.ours(below), ""), *kept]
        return tuple(
            _waiting(one.entry) if not one.kind else one.entry for one in sorted(kept, key=_rank)
        )

    def command(self, service: MasterCfService | None = None) -> str:
        """Writes `wanted`; words where it must wait, "" where it cannot be written so."""
        if unreachable(self.files, self.socket):
            return LATER
        return postfix_commands.set_milters(self.wanted(service), service)

    def local_command(self, service: MasterCfService | None = None) -> str:
        """Writes non_smtpd_milters without what leaves; without this milter too where a content
        filter gives such mail back, which would lose our result."""
        kept = [one for one in self.known(service, LOCAL) if self._stays(one)]
        if service is None and self.is_filtered:
            kept = [one for one in kept if one.kind]
        return postfix_commands.set_milters((one.entry for one in kept), service, LOCAL)

    @property
    def is_filtered(self) -> bool:
        """Whether a content filter gives mail back."""
        return any(self.files.value("content_filter", one) for one in (None, *self.files.smtpd()))

    def of_own_mail(self) -> Iterator[tuple[str, tuple[Known, ...]]]:
        """(where, the elements) of the lists that mail of clients does not pass."""
        smtpd = self.files.smtpd()
        for service, name in self._places():
            if name == LOCAL or (service is not None and service not in smtpd):
                yield f"{service.name}: {name}" if service else name, self.known(service, name)

    def retire(self, kind: str) -> str:
        """Takes a filter that leaves out of every list that names it, before it is stopped: mail
        waits for one that is stopped and still named. "" where that cannot be done by commands."""
        if unreachable(self.files, self.socket) or any(
            self.files.value("smtpd_milter_maps", service)
            for service in (None, *self.files.services)
        ):
            return ""
        then = replace(self, files=self._with_main_cf_written())
        commands = [
            self.command(service) if name == SMTPD else self.local_command(service)
            for service, name in self._places()
            if any(
                one.kind == kind and self.leaves(one)
                for one in (self if (service, name) == (None, SMTPD) else then).known(service, name)
            )
        ]
        return postfix_commands.together(commands) if all(commands) else ""

    def lacks_ours(self, service: MasterCfService | None) -> bool:
        """Whether mail from outside should pass this milter by this list, and does not."""
        if service is None:
            return main_cf_lacks(self.files, self.socket)
        return (
            service in self.files.smtpd()
            and not service.is_submission
            and not service.is_given_back
            and not self._is_for_our_users(service)
        )

    def _is_for_our_users(self, service: MasterCfService) -> bool:
        """A trusted name given to this service alone."""
        daemon = service.options.get("milter_macro_daemon_name")
        trust = self.trust or Authentication()
        return daemon is not None and (
            self.files.value("milter_macro_daemon_name", service) in trust.trusted_daemons
        )

    def _places(self) -> Iterator[tuple[MasterCfService | None, str]]:
        """Every list that is written somewhere: main.cf's, and each -o of master.cf."""
        for name in (SMTPD, LOCAL):
            yield None, name
            for service in self.files.services:
                if name in service.options:
                    yield service, name

    def _with_main_cf_written(self) -> Postfix:
        """What refers to $smtpd_milters follows it."""
        text = ", ".join(entry.text for entry in self.wanted())
        return replace(self.files, settings={**self.files.settings, SMTPD: text})

    def _stays(self, one: Known) -> bool:
        return not self.leaves(one) and not (
            one.kind and earlier_socket.is_at(one.entry.endpoint, self.files, self.earlier)
        )


def _rank(one: Known) -> int:
    return RANKS.get(one.kind, 2)


def _waiting(entry: MilterEntry) -> MilterEntry:
    """Braces that let mail pass unchecked while this milter is down lose that."""
    if entry.settings.get("default_action") != "accept":
        return entry
    return postfix_commands.with_setting(entry, "default_action", "tempfail")
