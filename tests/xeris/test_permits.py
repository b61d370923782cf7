"""Permits of blocks that the receiver missed: read from the chain, else from an endpoint that keeps every state."""

from collections import Counter
from functools import partial

import pytest
import trio
from sqlalchemy import delete, func, select
from trio.testing import MockClock

from engram.chain.errors import CallRefused
from engram.chain.read.node import Json, RpcCall
from engram.chain.read.view import View
from engram.hotkeys import Keypair
from engram.xeris import records
from engram.xeris.chain_views import READS_AT_ONCE, ChainViews, NotReadable
from engram.xeris.permits import ReadsPermits, chain_permits
from engram.xeris.tables import permits
from tests.fakes.living_chain import NETUID, LivingChain
from tests.xeris.test_judging import ONE, STRANGER, TWO, resigned, scores
from tests.xeris.test_receiver import Bench, bench

__all__ = ("bench",)

BLOCK = 1_100
"""The first of the living chain."""


class Light(LivingChain):
    """Has forgotten every state but that of its newest block."""

    def answer(self, call: RpcCall) -> Json:
        at = str(call.params[-1]) if call.params else ""
        if call.method.startswith("state_") and at.startswith("0x") and self.number(at) not in (None, self.head):
            return CallRefused(4003, f"State already discarded for {at}")
        return super().answer(call)


async def holders(chain: LivingChain) -> frozenset[bytes]:
    found = await chain_permits(ChainViews([chain]), [NETUID])(NETUID, BLOCK)
    assert found
    return found


async def test_permits_of_a_block_that_light_nodes_forgot_are_read_from_an_archive(autojump_clock: MockClock) -> None:
    light, archive = Light(), LivingChain("archive")
    expected = await holders(archive)
    for chain in (light, archive):
        chain.seal_at_look = False
        for _ in range(3):
            chain.seal()
    assert await chain_permits(ChainViews([light]), [NETUID])(NETUID, BLOCK) is None
    assert await chain_permits(ChainViews([light], [archive]), [NETUID])(NETUID, BLOCK) == expected
    assert await chain_permits(ChainViews([light], [archive]), [])(NETUID, BLOCK) is None, "no subnet of the receiver"


async def test_a_block_that_is_not_final_is_not_read(autojump_clock: MockClock) -> None:
    chain = LivingChain()
    chain.seal_at_look = False
    with pytest.raises(NotReadable, match="block 9999 is not final yet"):
        await ChainViews([chain]).read(9_999, partial(_number, []))
    with pytest.raises(NotReadable, match="no endpoint"):
        await ChainViews([]).read(1, partial(_number, []))


async def test_payloads_make_the_receiver_read_few_blocks_at_once(autojump_clock: MockClock) -> None:
    chain, reading = LivingChain(), list[int]()
    chain.seal_at_look = False
    views, go_on = ChainViews([chain]), trio.Event()

    async def slow(view: View) -> int:
        await go_on.wait()
        return await _number(reading, view)

    async with trio.open_nursery() as nursery:
        for _ in range(READS_AT_ONCE):
            nursery.start_soon(views.read, BLOCK, slow)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(NotReadable, match="are being read already"):
            await views.read(BLOCK, slow)
        go_on.set()
    assert reading == [BLOCK] * READS_AT_ONCE
    assert await views.read(BLOCK, partial(_number, [])) == BLOCK, "there is room again"
    with pytest.raises(NotReadable, match="could not be read within"):
        await views.read(BLOCK, _hang)


async def _hang(view: View) -> None:
    await trio.sleep_forever()


async def _number(seen: list[int], view: View) -> int:
    seen.append(view.head.number)
    return view.head.number


async def test_scores_of_a_block_that_was_missed_are_judged_by_the_permits_that_the_chain_had(bench: Bench) -> None:
    await bench.permit(900, STRANGER)
    await bench.permit(1_100, TWO)
    asked: list[tuple[int, int]] = []

    async def read(netuid: int, block: int) -> frozenset[bytes] | None:
        asked.append((netuid, block))
        return frozenset({ONE.public_key}) if block == 1_000 else None

    bench.receiver._read_permits = read
    assert (await bench.post(scores()))[0] == 200
    assert (await bench.post(scores(STRANGER)))[1]["code"] == "no_permit"
    assert asked == [(450, 1_000)], "read once, recorded, and known from then on"
    later = resigned(scores() | {"block": 1_001, "nonce": "1001:5:1"})
    assert (await bench.post(later))[1]["code"] == "permits_unknown"


async def test_registered_keys_that_held_no_permit_take_no_room_from_those_that_did(bench: Bench) -> None:
    """Anybody can register a key: with eight of them all room would be taken, and a validator be told to wait."""
    await bench.permit(900, ONE)
    await bench.permit(1_100, TWO)
    chain, go_on = LivingChain(), trio.Event()
    chain.seal_at_look = False
    of_holders, of_others = ChainViews([chain]), ChainViews([chain])

    def reading(views: ChainViews) -> ReadsPermits:
        async def read(netuid: int, block: int) -> frozenset[bytes] | None:
            async def slow(view: View) -> frozenset[bytes]:
                if views is of_others:
                    await go_on.wait()
                return frozenset({ONE.public_key})

            try:
                return await views.read(BLOCK, slow)
            except NotReadable:
                return None

        return read

    bench.receiver._read_permits = reading(of_holders)
    bench.receiver._read_permits_for_others = reading(of_others)
    answers = list[str]()

    async def submit(keypair: Keypair, block: int, number: int) -> None:
        changed = {"block": block, "nonce": f"{block}:{number}:1"}
        _, answer = await bench.post(resigned(scores(keypair) | changed, keypair))
        answers.append(answer["code"])

    crowd = [Keypair.from_seed(bytes([100 + number]) * 32) for number in range(8)]
    async with trio.open_nursery() as nursery:
        for number, keypair in enumerate(crowd):
            nursery.start_soon(submit, keypair, 1_000, number)
            nursery.start_soon(submit, keypair, 1_001, number)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert of_others._room.borrowed_tokens == READS_AT_ONCE, "no more, and one of each key"
        assert Counter(answers) == {"permits_unknown": 8, "at_work": 4}
        with trio.fail_after(10):
            assert (await bench.post(scores()))[0] == 200, "its permit at the nearest block is known"
        go_on.set()
    assert Counter(answers) == {"permits_unknown": 8, "at_work": 4, "no_permit": 4}


async def test_two_payloads_of_one_key_and_block_wait_for_one_reading(bench: Bench) -> None:
    """Scores and ranking of a round come together: the second was sent away for half a minute."""
    await bench.permit(900, ONE)
    await bench.permit(1_100, TWO)
    read, go_on, codes = list[int](), trio.Event(), list[int]()

    async def slow(_: int, block: int) -> frozenset[bytes]:
        read.append(block)
        await go_on.wait()
        return frozenset({ONE.public_key})

    async def submit(nonce: str) -> None:
        codes.append((await bench.post(resigned(scores() | {"nonce": nonce})))[0])

    bench.receiver._read_permits = slow
    async with trio.open_nursery() as nursery:
        nursery.start_soon(submit, "1000:5:1")
        nursery.start_soon(submit, "1000:5:2")
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert (read, codes) == ([1_000], [])
        go_on.set()
    assert (read, codes) == ([1_000], [200, 200])


async def test_the_finalized_head_is_that_of_the_chain_and_nothing_while_no_endpoint_answers(
    autojump_clock: MockClock,
) -> None:
    chain = LivingChain()
    views = ChainViews([chain])
    before = await views.head()
    chain.seal()
    assert await views.head() > before > 0
    assert await ChainViews([]).head() == 0


async def test_the_chain_is_read_for_keys_that_are_known_and_recorded_for_those_that_held_a_permit(
    bench: Bench,
) -> None:
    asked: list[int] = []

    async def read(netuid: int, block: int) -> frozenset[bytes] | None:
        asked.append(block)
        return frozenset({ONE.public_key})

    def rows() -> int:
        return bench.ledger.read_now(lambda c: c.scalar(select(func.count()).select_from(permits))) or 0

    registered = set[bytes]()
    bench.receiver._read_permits = read
    bench.receiver._is_registered = lambda netuid, key: key in registered
    assert (await bench.post(scores(STRANGER)))[1]["code"] == "permits_unknown"
    assert (asked, rows()) == ([], 0), "a key that nobody knows"
    registered.add(STRANGER.public_key)
    assert (await bench.post(scores(STRANGER)))[1]["code"] == "no_permit"
    assert (asked, rows()) == ([1_000], 0), "a registered one that held no permit"
    for around in (900, 1_100):
        await bench.ledger.write(lambda c: c.execute(delete(permits)))
        await bench.permit(around, ONE)
        assert (await bench.post(scores(TWO)))[1]["code"] == "permits_unknown"
        assert await bench.ledger.read(lambda c: records.held_around(c, 450, 1_000)) == {ONE.public_key}
    assert (await bench.post(scores()))[0] == 200
    assert (asked, rows()) == ([1_000] * 2, 2), "not registered by now; its permits are known of a block near"
