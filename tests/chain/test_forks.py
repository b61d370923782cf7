"""Two endpoints on different forks: seen at the lower one's own finalized block, and kept with both headers."""

import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from engram.chain.errors import CallRefused, EndpointsForked
from engram.chain.model import BlockReport, Fork
from engram.chain.read.view import open_view
from engram.chain.sync.fork_folder import FORKS_KEPT, ForkFolder
from tests.chain.test_actor import live, syncing
from tests.fakes.chain import ChainDouble, unreachable
from tests.fakes.living_chain import LivingChain

Clock = trio.testing.MockClock


def forked(lead: int) -> tuple[LivingChain, LivingChain]:
    """Of one chain until block 1098; `going` is ahead by `lead` blocks of its own, `standing` stands still."""
    going, standing = LivingChain("going"), LivingChain("standing")
    going.seal_at_look = standing.seal_at_look = False
    standing.forks.append(1099)
    for _ in range(lead):
        going.seal()
    return going, standing


@pytest.mark.parametrize("lead", [0, 1, 50])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_a_fork_that_stands_still_is_not_outvoted_by_the_one_that_goes_on(
    lead: int, order: tuple[int, int]
) -> None:
    chains = forked(lead)
    with pytest.raises(EndpointsForked, match="different finalized blocks 1100") as seen:
        await open_view([chains[place] for place in order])
    going, standing = chains
    claims = {claim.endpoint: claim for claim in (seen.value.fork.one, seen.value.fork.other)}
    assert {name: claim.hash for name, claim in claims.items()} == {
        "going": going.hash(1100),
        "standing": standing.hash(1100),
    }
    assert all(isinstance(claim.header, dict) and claim.block == 1100 for claim in claims.values())


async def test_one_that_lags_behind_on_the_same_chain_contradicts_nothing() -> None:
    going, standing = forked(50)
    standing.forks.clear()
    assert (await open_view([going, standing])).head.number == 1150


async def test_one_that_does_not_know_so_old_a_block_contradicts_nothing() -> None:
    going, standing = forked(50)
    answer = going.answer

    def pruned(call: Any) -> Any:
        return None if (call.method, *call.params) == ("chain_getBlockHash", 1100) else answer(call)

    going.answer = pruned  # type: ignore[method-assign]  # a double that forgets
    assert (await open_view([going, standing])).head.number == 1150


@pytest.mark.parametrize("header", [CallRefused(-32000, "no"), {"digest": "0x" + "00" * 20_000}])
async def test_a_header_that_is_refused_or_too_large_spoils_no_evidence(header: object) -> None:
    going, standing = forked(0)
    answer = standing.answer
    asked = 0

    def answering(call: Any) -> Any:
        nonlocal asked
        asked += call.method == "chain_getHeader"
        return header if call.method == "chain_getHeader" and asked > 1 else answer(call)

    standing.answer = answering  # type: ignore[method-assign]  # a double that hides its header
    with pytest.raises(EndpointsForked) as seen:
        await open_view([going, standing])
    assert (seen.value.fork.other.endpoint, seen.value.fork.other.header) == ("standing", None)


async def test_the_syncer_follows_no_endpoint_while_another_stands_still_on_another_fork(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    going, standing, forks = ChainDouble("going"), ChainDouble("standing"), list[Fork]()
    going.down = unreachable("going")
    async with syncing([going, standing], forks=forks) as running:
        held = running.subnets.get(450)
        assert held is not None
        going.down = None
        standing.down = unreachable("standing")
        await trio.sleep(30)
        standing.down = None
        going.reorganise(1101)
        standing.head = 1101
        going.head = 1101
        nursery.start_soon(live, going)
        await trio.sleep(300)
        assert running.subnets.get(450) is held
        assert "its finalized block 1101 is another one at standing" in running.subnets.status().error
        assert {forks[0].one.hash, forks[0].other.hash} == {going.hash(1101), standing.hash(1101)}


async def test_a_fork_that_stands_still_is_outvoted_by_two_and_named(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    one, standing, three, forks = ChainDouble("one"), ChainDouble("standing"), ChainDouble("three"), list[Fork]()
    async with syncing([one, standing, three], forks=forks) as running:
        standing.reorganise(1101)
        for chain in (one, standing, three):
            chain.head = 1101
        nursery.start_soon(live, one, three)
        await trio.sleep(300)
        assert running.block is not None
        assert running.block >= one.head - 1
        assert "standing alone has another finalized block 1101" in (
            running.subnets.status().endpoints["standing"].last_error
        )
        assert {(fork.one.block, fork.other.endpoint) for fork in forks} == {(1101, "standing")}


def fork(number: int) -> Fork:
    return Fork(
        1.0,
        BlockReport("a", number, "0x" + "aa" * 32, {"number": hex(number)}),
        BlockReport("b", number, "0x" + "bb" * 32),
    )


async def test_evidence_is_kept_once_readable_by_its_owner_alone_and_bounded(tmp_path: Path) -> None:
    folder = tmp_path / "chain-forks"
    kept = ForkFolder(folder)
    await kept.keep(fork(1))
    (path,) = folder.iterdir()
    assert msgspec.json.decode(path.read_bytes(), type=Fork) == fork(1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.stat().st_mtime_ns
    await kept.keep(fork(1))
    assert path.stat().st_mtime_ns == before
    for number in range(2, FORKS_KEPT + 5):
        await kept.keep(fork(number))
    assert len(list(folder.iterdir())) == FORKS_KEPT
    assert not path.exists()


async def test_a_disk_that_refuses_evidence_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    await ForkFolder(tmp_path / "file").keep(fork(1))
    assert (tmp_path / "file").read_text() == ""
