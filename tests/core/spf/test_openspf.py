"""The openspf suite for RFC 7208, all 203 cases of it, through our own `check` and a scripted DNS.

The suite is fetched from pyspf's source distribution (tools/fetch_openspf.py); a machine that
cannot fetch it fails here rather than passing without it. Explanations (exp=) are not compared:
they are never fetched and never printed.
"""

from __future__ import annotations

import pytest

from dmarc_milter.core.spf.check import check
from fakes.openspf import CASES, allowed, envelope, suite, zone

EXCEPTIONS: dict[str, str] = {}
"""Case: the result that we give instead, with the sentence of RFC 7208 that says so. None is
needed."""


@pytest.mark.parametrize("number", range(CASES))
def test_openspf(number: int) -> None:
    """One case of the suite; where several results are allowed, any of them."""
    name, case, data = suite()[number]
    result = check(envelope(case), zone(data))
    assert result.status in ([EXCEPTIONS[name]] if name in EXCEPTIONS else allowed(case)), (
        f"{name}: {result}"
    )


def test_the_suite_is_whole() -> None:
    """A suite with fewer or more cases is another suite: count the exceptions again."""
    assert len(suite()) == CASES
    assert set(EXCEPTIONS) <= {name for name, _, _ in suite()}
