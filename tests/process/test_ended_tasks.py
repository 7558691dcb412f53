"""What is left of a task that has ended."""

from __future__ import annotations

import weakref

import pytest

from dmarc_milter.process.loop import Loop


@pytest.mark.parametrize("begun", [True, False])
def test_an_ended_task_holds_nothing_of_what_it_did(begun: bool) -> None:
    """A message and its connection: the greenlet is kept for the next task, which may come late."""

    class Work:
        def do(self) -> None:
            pass

    loop, work = Loop(), Work()
    seen = weakref.ref(work)
    task = loop.spawn(work.do)
    del work
    if begun:
        loop.turn(0)
    task.end()
    assert task.ended
    assert seen() is None
    loop.close()
