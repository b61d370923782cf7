"""When a node ends by itself."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import trio
import trio.testing
from trio.testing import MockClock

from engram.clock import TrioClock
from engram.hotkeys import Keypair
from engram.miner import node
from engram.miner.lifetime import EXTENSION_WAIT_S, Lifetime
from engram.miner.signer import Signer


async def ended_after(ends_in_s: float, *, told_after_s: float | None, told_end_s: float = 0.0) -> float:
    """Return seconds until a node ends that knows one end, and is told another one after so long (None: never)."""
    clock = TrioClock()
    started = trio.current_time()
    known, end = clock.now() + ends_in_s, clock.now() + told_end_s
    told = trio.Event()

    async def tell() -> None:
        await trio.sleep(told_after_s or 0.0)
        told.set()

    async with trio.open_nursery() as nursery:
        if told_after_s is not None:
            nursery.start_soon(tell)
            await trio.testing.wait_all_tasks_blocked()
        await Lifetime(clock, known, lambda: end if told.is_set() else known, told.is_set).over()
        nursery.cancel_scope.cancel()
    return trio.current_time() - started


async def test_a_node_ends_at_the_end_that_it_was_told(autojump_clock: MockClock) -> None:
    assert 100.0 <= await ended_after(100.0, told_after_s=0.0, told_end_s=100.0) <= 106.0


async def test_a_node_that_is_started_after_the_end_it_knows_waits_to_be_told_another_one(
    autojump_clock: MockClock,
) -> None:
    """A container that is started again in the months by which its session was extended."""
    assert 5_000.0 <= await ended_after(-60.0, told_after_s=200.0, told_end_s=5_000.0) <= 5_006.0


async def test_a_node_that_is_never_told_of_another_end_ends(autojump_clock: MockClock) -> None:
    assert EXTENSION_WAIT_S <= await ended_after(-60.0, told_after_s=None) <= EXTENSION_WAIT_S + 6.0


async def test_a_node_that_is_told_that_its_time_is_over_ends_at_once(autojump_clock: MockClock) -> None:
    assert await ended_after(-60.0, told_after_s=0.0, told_end_s=-60.0) <= 6.0


def test_a_node_whose_hotkey_is_with_its_gateway_knows_its_end_by_the_first_certificate() -> None:
    keypair = Keypair.from_uri("//Alice")
    foreign = Signer.with_session_key(keypair.public_key)
    assert not node._has_current_end(ports(foreign))
    foreign.ends_at = 1.0
    assert node._has_current_end(ports(foreign))
    assert node._has_current_end(ports(Signer.with_hotkey(keypair)))
    assert node._has_current_end(ports(Signer.with_session_key(keypair.public_key), Path("launch.json")))


def ports(signer: Signer, launch_file: Path | None = None) -> Any:
    return SimpleNamespace(signer=signer, launch_file=launch_file)
