"""The guard around events: an exception of ours is reported and never reaches the MTA."""

from __future__ import annotations

from dmarc_milter.session.guard import Report, guarded


class Heard:
    """An object whose events may fail."""

    def __init__(self) -> None:
        self.reports: list[str] = []

    def failed(self, where: str, error: BaseException) -> None:
        self.reports.append(f"{where}: {error}")


def report(heard: Heard) -> Report:
    return heard.failed


@guarded(report, -1)
def divide(heard: Heard, number: int, *, by: int) -> int:
    """An event of two arguments."""
    return number // by


def test_an_event_answers_what_it_answers() -> None:
    heard = Heard()
    assert divide(heard, 6, by=3) == 2
    assert heard.reports == []


def test_a_failing_event_is_reported_by_its_name_and_answers_the_default() -> None:
    """docs/design.md: our own failure is answered by on_error, never with a refusal."""
    heard = Heard()
    assert divide(heard, 6, by=0) == -1
    (said,) = heard.reports
    assert said.startswith("divide: ")
    assert said.endswith(" by zero")


def test_a_callback_is_reported_by_the_name_of_its_event() -> None:
    """`connect` and `helo` leave no message of the connection judged, so the name matters."""
    heard = Heard()
    callback = guarded(report, 0, "connect")(lambda heard, number: 1 // number)
    assert callback(heard, 0) == 0
    assert heard.reports[0].startswith("connect: ")


def test_a_report_that_fails_too_reaches_nobody() -> None:
    def no_session(_context: Heard) -> Report:
        raise AttributeError("no connection yet")

    callback = guarded(no_session, 0, "helo")(lambda _heard: 1 // 0)
    assert callback(Heard()) == 0
