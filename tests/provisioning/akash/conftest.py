"""Fixtures of this folder."""

from typing import Final

import pytest
from trio.testing import MockClock

IDLE_S: Final = 0.002
"""Real seconds without anything to do, after which virtual time moves on. What a socket has for this process is there
long before; a thread that reads certificates costs a few blocks."""


@pytest.fixture
def virtual_time() -> MockClock:
    """Gateway and double wait in virtual time: it stands while either computes, and skips what both wait for."""
    return MockClock(autojump_threshold=IDLE_S)
