"""What holds for every test: how long a Hypothesis example takes is no matter, since the machine
may be busy; and a test that measures time runs when no other does, one that measures processor time
beside its like.

The fixtures are here because several modules share them: imported into each they would be made
anew for each.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Generator, Iterator
from types import CodeType, FunctionType

import pytest
from hypothesis import HealthCheck, settings

from fakes.stores import postgres_server, store_url

__all__ = ["postgres_server", "store_url"]

collect_ignore = (
    []
    if importlib.util.find_spec("Milter")
    else ["session/test_libmilter.py", "session/test_pymilter_defects.py"]
)
"""Where pymilter is not installed its own tests are left out; all others go by our own code."""

settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")

PROCESSOR = {"process_time", "thread_time"}
WALL = {"monotonic", "perf_counter"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that measure time as `alone`, since what runs beside them would be measured
    too, and those that measure processor time alone as `processor`."""
    for item in items:
        if not isinstance(item, pytest.Function) or {"alone", "processor"} & {
            mark.name for mark in item.iter_markers()
        }:
            continue
        if uses_clock(item.obj, WALL):
            item.add_marker(pytest.mark.alone)
        elif uses_clock(item.obj, PROCESSOR):
            item.add_marker(pytest.mark.processor)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a hostile test logged or compared may hold lone surrogates, which a test process cannot
    send to the one that collects."""
    report = yield
    report.sections = [(name, encodable(text)) for name, text in report.sections]
    if (text := str(report.longrepr)) != encodable(text):
        report.longrepr = encodable(text)
    return report


def encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def uses_clock(test: object, clocks: set[str]) -> bool:
    """Whether the function reads one of these clocks, itself or through a helper.

    The wall clock counts in the test's own module alone: elsewhere it is read to wait for things.
    """
    inner = getattr(test, "hypothesis", None)
    function = inner.inner_test if inner else getattr(test, "__func__", test)
    return isinstance(function, FunctionType) and reads(
        function, clocks, function.__module__ if clocks is WALL else None, set()
    )


def reads(
    function: FunctionType, clocks: set[str], module: str | None, seen: set[CodeType]
) -> bool:
    if function.__code__ in seen or function.__module__.startswith("dmarc_milter"):
        return False
    seen.add(function.__code__)
    used = set(names(function.__code__))
    if used & clocks and module in (None, function.__module__):
        return True
    called = (function.__globals__.get(name) for name in used)
    return any(
        reads(each, clocks, module, seen) for each in called if isinstance(each, FunctionType)
    )


def names(code: CodeType) -> Iterator[str]:
    """Every global and attribute that the code uses, in the functions inside it too."""
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from names(each)
