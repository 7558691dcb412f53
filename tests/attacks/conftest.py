"""One stage for all modules of the catalogue: what one case leaves behind in a worker, the next
would feel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fakes.attack import Stage


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("catalogue")) as made:
        yield made
