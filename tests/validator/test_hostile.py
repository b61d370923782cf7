"""Miners that are slow, huge, deep, wrong, endless or gone: each costs its own score, never the round."""

import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio

from engram.hotkeys import Keypair
from engram.validator import reports
from engram.validator.model import RoundState
from engram.validator.records import standings as miner_records
from tests.fakes.responder import Answer, Asked, Responder
from tests.validator.benches import NETUID, Bench, key, over
from tests.validator.toy_miners import Keeps

Fault = Callable[[Asked], Awaitable[Answer | None]]


async def huge(asked: Asked) -> Answer | None:
    return 200, {}, b'{"results": [' + b'{"cid":"x"},' * 300_000 + b'{"cid":"x"}]}'


async def deep(asked: Asked) -> Answer | None:
    return 200, {}, b'{"results":' + b"[" * 20_000 + b"]" * 20_000 + b"}"


async def wrong(asked: Asked) -> Answer | None:
    return 200, {}, json.dumps({"results": {"cid": 7}, "cid": 9, "proof": [], "root_hex": 1, "count": "x"}).encode()


async def not_numbers(asked: Asked) -> Answer | None:
    return 200, {}, b'{"results": [{"cid": "v1::x", "score": NaN, "metadata": {}}], "proof": NaN, "count": Infinity}'


async def half_a_proof(asked: Asked) -> Answer | None:
    shown = {"proof": "zz", "root_hex": "00" * 31, "count": -1, "signature": "0x1", "inclusion": {"key": "00"}}
    return 200, {}, json.dumps(shown | {"results": None, "cid": None}).encode()


async def endless(asked: Asked) -> Answer | None:
    await trio.sleep_forever()
    raise AssertionError


async def gone(asked: Asked) -> Answer | None:
    return None


async def failing(asked: Asked) -> Answer | None:
    return 500, {}, b"oops"


PART = b" " * 1_048_576
BOMB = gzip.compress(PART * 10, 1)
TEN_GB = 10_240
"""Of PART."""
taken = 0
"""How many of them the validator's side has taken."""


async def ten_gigabytes(asked: Asked) -> Answer | None:
    async def parts() -> AsyncIterator[bytes]:
        global taken
        for taken in range(TEN_GB):  # noqa: B007
            yield PART
            await trio.lowlevel.checkpoint()

    return 200, {}, parts()


async def bomb(asked: Asked) -> Answer | None:
    """Ten megabytes in ten kilobytes, which nobody has asked for."""
    return 200, {"content-encoding": "gzip"}, BOMB


async def drips(asked: Asked) -> Answer | None:
    async def parts() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await trio.sleep(0.05)

    return 200, {}, parts()


FAULTS = [huge, ten_gigabytes, bomb, drips, deep, wrong, not_numbers, half_a_proof, endless, gone, failing]


class Turns(Keeps):
    """Behaves until `turned`, then does as the fault says."""

    def __init__(self, keypair: Keypair, fault: Fault) -> None:
        super().__init__(keypair)
        self.fault = fault
        self.turned = False

    async def answer(self, asked: Asked) -> Answer | None:
        return await (self.fault(asked) if self.turned else super().answer(asked))


async def scores(bench: Bench) -> dict[int, reports.MinerScore]:
    return {each.uid: each for each in await bench.ledger.read(lambda c: reports.scores(c, NETUID))}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_a_hostile_miner_earns_nothing_and_the_others_keep_their_scores(fault: Fault) -> None:
    hostile, honest = Turns(key(2), fault), Keeps(key(1))
    async with over([honest, hostile], timeout_s=0.4, deadline_s=3.0) as bench:
        await bench.hold()
        hostile.turned = True
        bench.block += 50
        began = trio.current_time()
        closed = await bench.rounds.hold(bench.metagraph())
        assert trio.current_time() - began < 6.0
        assert closed.state is RoundState.CLOSED
        found = await scores(bench)
        assert found[1].score == pytest.approx(1.0, abs=0.02)
        assert found[2].score == 0.0
        assert taken < 20, "of 10 GB no more than what buffers hold was taken"


async def test_a_miner_on_ipv6_is_asked_as_any_other() -> None:
    class Six(Keeps):
        def __init__(self, keypair: Keypair) -> None:
            super().__init__(keypair)
            self.responder = Responder(self.answer, "::1")

    async with over([Six(key(1))]) as bench:
        assert bench.miners[0].url.startswith("http://[::1]:")
        await bench.hold()
        assert (await scores(bench))[1].score == pytest.approx(1.0, abs=0.02)


async def test_a_miner_that_moves_within_a_round_loses_that_round_alone() -> None:
    moving = Keeps(key(2))
    async with over([Keeps(key(1)), moving], timeout_s=0.4) as bench:
        await bench.hold()
        new = Responder(moving.answer)
        async with trio.open_nursery() as nursery:
            old, moving.url = moving.url, await nursery.start(new.run)
            moved = moving.url
            moving.url = "http://127.0.0.1:9"  # where it was when the round began; nobody listens there any more
            await bench.plant()
            await bench.rounds.hold(bench.metagraph())
            assert (await scores(bench))[2].score == 0.0
            moving.url = moved
            await bench.hold()
            found = await scores(bench)
            assert found[2].score == pytest.approx(1.0, abs=0.02)
            assert found[2].url == moved != old
            assert found[2].rounds == 3
            nursery.cancel_scope.cancel()


async def test_a_miner_that_disappears_within_a_round_is_scored_by_what_it_answered() -> None:
    class Vanishes(Turns):
        left = 2

        async def answer(self, asked: Asked) -> Answer | None:
            if self.turned:
                self.left -= 1
                if self.left < 0:
                    return None
            return await Keeps.answer(self, asked)

    leaving = Vanishes(key(2), gone)
    async with over([Keeps(key(1)), leaving], timeout_s=0.4) as bench:
        await bench.hold()
        await bench.plant()
        leaving.turned = True
        await bench.rounds.hold(bench.metagraph())
        found = await scores(bench)
        assert found[1].score == pytest.approx(1.0, abs=0.02)
        assert found[2].recall == pytest.approx(0.5)
        assert found[2].proof_rate == 0.0


async def test_a_miner_that_answers_in_drips_ends_with_the_round_s_deadline() -> None:
    class Slow(Turns):
        pass

    async def late(asked: Asked) -> Answer | None:
        await trio.sleep(0.35)
        return 500, {}, b""

    slow = Slow(key(2), late)
    async with over([Keeps(key(1)), slow], timeout_s=0.5, deadline_s=0.8) as bench:
        await bench.hold()
        slow.turned = True
        began = trio.current_time()
        await bench.rounds.hold(bench.metagraph())
        assert trio.current_time() - began < 2.5
        explained = await bench.ledger.read(lambda c: reports.explain(c, NETUID, 2, 1))
        assert explained is not None
        outcomes = [each.outcome for each in explained.rounds[0].questions]
        assert set(outcomes) == {"refused", "late"}


async def test_a_miner_that_disappears_between_rounds_is_scored_from_what_it_should_hold() -> None:
    leaving = Keeps(key(2))
    async with over([Keeps(key(1)), leaving], timeout_s=0.4) as bench:
        await bench.hold()
        leaving.url = "http://127.0.0.1:9"  # the discard port: nobody listens
        await bench.rounds.hold(bench.metagraph())
        found = await scores(bench)
        assert found[2].score == 0.0
        assert found[1].score == pytest.approx(1.0, abs=0.02)


async def test_a_new_hotkey_on_an_old_uid_starts_clean() -> None:
    first = Keeps(key(1))
    async with over([first]) as bench:
        await bench.hold()
        await bench.hold()
        second = Keeps(key(5))
        second.url, second.responder = first.url, first.responder
        first.keypair = key(5)
        first.records.clear()
        await bench.hold()
        known = await bench.ledger.read(lambda c: miner_records.known(c, key(5).public_key))
        assert known is not None
        assert known.standing.rounds <= 1
