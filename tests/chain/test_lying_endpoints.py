"""One of two endpoints makes things up. Whatever it says that the other cannot confirm is not taken."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio

from engram.chain.errors import AnswersDiffer, HeadAwaited, NotReadBack, OutcomeUnknown
from engram.chain.read.node import Json, RpcCall
from engram.chain.read.view import open_view
from engram.chain.submit.calls import set_commitment
from engram.chain.submit.sender import Sender
from engram.chain.submit.submit_extrinsic import Included, InclusionWait, submit
from engram.clock import Clock, SystemClock, TrioClock
from engram.hotkeys import Keypair
from tests.chain.samples import metadata, scale
from tests.chain.test_actor import live, syncing
from tests.fakes import metadata_v15
from tests.fakes.chain import ChainDouble, hash_of
from tests.fakes.living_chain import LivingChain

MockClock = trio.testing.MockClock
HIDDEN = scale()[-40:]
QUICK = InclusionWait(poll_s=0.01, patience_s=1.0)


def made_now(clock: Clock) -> Callable[[int], float]:
    """The newest block is of now."""
    return lambda number: clock.now()


class Ahead(ChainDouble):
    """Knows all that `honest` does, and `lead` blocks more, which it makes up."""

    def __init__(self, honest: ChainDouble, lead: int) -> None:
        super().__init__("ahead")
        self.honest = honest
        self.lead = lead

    async def ask(self, calls: Sequence[RpcCall]) -> list[Json]:
        self.head = self.honest.head + self.lead
        return await super().ask(calls)

    def hash(self, number: int) -> str:
        return self.honest.hash(number) if number <= self.honest.head else hash_of((6, 6, 6), number)

    def number(self, block_hash: Json) -> int | None:
        return self.head if block_hash == self.hash(self.head) else self.honest.number(block_hash)

    def metagraph(self, argument: str, number: int | None, at: Json) -> Json:
        told = super().metagraph(argument, number, at)
        if number != self.head or not isinstance(told, str):
            return told
        return told.replace(HIDDEN.hex(), bytes(reversed(HIDDEN)).hex())


def with_fields_swapped(one: str, other: str) -> str:
    """Metadata by which two fields of the metagraph stand in each other's place."""
    tree: dict[str, Any] = metadata_v15.read(metadata())
    for each in tree["types"]:
        named = {field["name"]: field for field in each["type"]["definition"].get("composite", [])}
        if {one, other} <= named.keys():
            named[one]["name"], named[other]["name"] = other, one
    return "0x" + metadata_v15.write(tree).hex()


class OtherMetadata(ChainDouble):
    """By its metadata alpha is TAO, and the other way round."""

    def answer(self, call: RpcCall) -> Json:
        if call.method == "state_call" and call.params[0] == "Metadata_metadata_at_version":
            return with_fields_swapped("alpha_stake", "tao_stake")
        return super().answer(call)


@pytest.mark.parametrize("lead", [1, 3, 3_000_000])
async def test_blocks_that_only_an_endpoint_that_is_ahead_knows_are_never_acted_on(
    autojump_clock: MockClock, nursery: trio.Nursery, lead: int
) -> None:
    honest = ChainDouble("honest")
    honest.made_s = made_now(TrioClock())
    nursery.start_soon(live, honest)
    async with syncing([Ahead(honest, lead), honest]) as running:
        for _ in range(30):
            await trio.sleep(12)
            found = running.subnets.get(450)
            assert found is None or "0x" + found.block_hash.hex() == honest.hash(found.block)
        assert running.subnets.status().failures == 0
        assert running.block is not None
        assert running.block >= honest.head - 1


async def test_of_two_honest_endpoints_the_slower_one_sets_the_pace_and_none_is_set_aside(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    fast, slow = ChainDouble("fast", 1102), ChainDouble("slow", 1100)
    slow.made_s = made_now(TrioClock())
    nursery.start_soon(live, fast, slow)
    async with syncing([fast, slow]) as running:
        await trio.sleep(120)
        found = running.subnets.get(450)
        assert found is not None
        assert found.block >= slow.head - 1
        assert {found.endpoint, found.witness} == {"fast", "slow"}
        assert running.subnets.status().failures == 0


async def test_an_endpoint_whose_chain_stands_still_holds_up_nobody(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    going, standing = ChainDouble("going", 1150), ChainDouble("standing", 1100)
    standing.made_s = lambda number: 1_700_000_000.0 - 600
    nursery.start_soon(live, going)
    async with syncing([going, standing]) as running:
        await trio.sleep(60)
        assert running.block is not None
        assert running.block >= going.head - 1


async def test_metadata_of_one_endpoint_alone_does_not_say_what_bytes_mean(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    liar, honest, third = OtherMetadata("liar"), ChainDouble("honest"), ChainDouble("third")
    nursery.start_soon(live, liar, honest, third)
    async with syncing([liar, honest]) as running:
        await trio.sleep(120)
        assert running.subnets.get(450) is None
        assert "the metadata of runtime 293" in running.subnets.status().error
    async with syncing([liar, honest, third]) as running, syncing([honest]) as true:
        await trio.sleep(120)
        found, known = running.subnets.get(450), true.subnets.get(450)
        assert found is not None
        assert known is not None
        assert [one.alpha_stake_rao for one in found.neurons] == [one.alpha_stake_rao for one in known.neurons]


@pytest.mark.parametrize("lead", [1, 1_000])
async def test_a_command_reads_the_newest_block_that_two_endpoints_have(lead: int) -> None:
    ahead, other = LivingChain("ahead"), LivingChain("other")
    ahead.seal_at_look = other.seal_at_look = False
    other.put(int(SystemClock().now() * 1000), "Timestamp", "Now")
    for _ in range(lead):
        ahead.seal()
    view = await open_view([ahead, other])
    assert (view.node.name, view.head.number) == ("other", other.head)


async def test_what_is_read_at_a_block_that_a_live_endpoint_does_not_have_is_not_told() -> None:
    ahead, other = LivingChain("ahead"), LivingChain("other")
    ahead.seal_at_look = other.seal_at_look = False
    other.put(int(SystemClock().now() * 1000), "Timestamp", "Now")
    ahead.seal()
    other.reorganise(other.head)
    other.seal()
    other.put(int(SystemClock().now() * 1000), "Timestamp", "Now")
    with pytest.raises((AnswersDiffer, HeadAwaited)):
        await open_view([ahead, other])


async def test_a_block_that_only_an_endpoint_that_is_ahead_has_does_not_tell_how_a_call_ended(
    autojump_clock: MockClock,
) -> None:
    ahead, other = LivingChain("ahead"), LivingChain("other")
    other.seal_at_look = False
    ahead.seal_at_look = False
    view = await open_view([ahead, other])
    ahead.seal_at_look = True
    other.put(int(SystemClock().now() * 1000), "Timestamp", "Now")
    with pytest.raises(OutcomeUnknown):
        await submit(view, [ahead, other], set_commitment(450, b"a:1"), Keypair.from_uri("//sn450//hot//7"), QUICK)


def without_events(entry: dict[str, Any]) -> None:
    entry["name"] = "Eventually"


def with_numbers_for_events(entry: dict[str, Any]) -> None:
    types = metadata_v15.read(metadata())["types"]
    u32 = next(one["id"] for one in types if one["type"]["definition"] == {"primitive": 5})
    entry["type"] = {"plain": next(one["id"] for one in types if one["type"]["definition"] == {"sequence": u32})}


@pytest.mark.parametrize("changed", [without_events, with_numbers_for_events])
async def test_an_upgrade_that_nobody_understands_leaves_the_outcome_unknown(
    autojump_clock: MockClock, changed: Callable[[dict[str, Any]], None]
) -> None:
    tree: dict[str, Any] = metadata_v15.read(metadata())
    (system,) = (one for one in tree["pallets"] if one["name"] == "System")
    (events,) = (one for one in system["storage"]["entries"] if one["name"] == "Events")
    changed(events)
    chain = LivingChain()
    view = await open_view([chain])
    chain.spec_version += 1
    chain.replace = {"state_call": "0x" + metadata_v15.write(tree).hex(), "state_getStorage": "0x0401000000"}
    with pytest.raises(OutcomeUnknown):
        await submit(view, [chain], set_commitment(450, b"a:1"), Keypair.from_uri("//sn450//hot//7"), QUICK)
    assert chain.get("Commitments", "CommitmentOf", 450, Keypair.from_uri("//sn450//hot//7").public_key) is not None


async def test_what_two_endpoints_read_back_differently_is_not_told_as_a_failure(autojump_clock: MockClock) -> None:
    one, other = LivingChain("one"), LivingChain("other")
    one.seal_at_look = other.seal_at_look = False
    view = await open_view([one, other])
    done = Included(view.head, bytes(32), 0, ())
    other.put(11, "SubtensorModule", "Tempo", 450)
    with pytest.raises(NotReadBack, match="differ on state_getStorage"):
        await Sender([one, other]).read_back(view, done, lambda there: there.storage("SubtensorModule", "Tempo", 450))
