"""Fixtures of this folder."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import pytest
import trio
from trio.testing import MockClock

T = TypeVar("T")

IDLE_S: Final = 0.002
"""Real seconds without anything to do, after which virtual time moves on: what a socket has for this process is there
long before."""


async def _here(work: Callable[..., T], *args: Any, **_: Any) -> T:
    await trio.lowlevel.checkpoint()
    return work(*args)


@pytest.fixture
def virtual_time(monkeypatch: pytest.MonkeyPatch) -> MockClock:
    """Gateway and double wait in virtual time: it stands while either computes, and skips what both wait for.

    What goes to a thread elsewhere is done in the loop: time would not stand for a thread.
    """
    monkeypatch.setattr(trio.to_thread, "run_sync", _here)
    return MockClock(autojump_threshold=IDLE_S)
