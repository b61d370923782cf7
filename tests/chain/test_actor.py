"""The syncer in virtual time, against a chain that does as it is told."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio

from actors import ActorDown, ActorRef, ChildSpec, Registry, SupervisorSpec, open_system
from config.model import ChainSettings
from engram.chain import AxonMoved, Replaced, SubnetChange, Subnets
from engram.chain.errors import CallRefused, EndpointBusy
from engram.chain.model import Fork
from engram.chain.read.node import ChainEndpoint, Json, RpcCall
from engram.chain.read.recorded import RECORDED_NETWORK, RecordedEndpoint
from engram.chain.sync.actor import MetagraphSyncer
from engram.chain.sync.protocol import Poll
from engram.clock import TrioClock
from engram.hotkeys import ss58
from tests.chain.samples import encoded, metadata, scale
from tests.crashes import may_crash
from tests.fakes.chain import ChainDouble, rehotkeyed, renumbered, unreachable

METAGRAPH = "SubnetInfoRuntimeApi_get_metagraph"
Clock = trio.testing.MockClock


class Syncing:
    """A running syncer and what it told."""

    def __init__(self, subnets: Subnets, ref: ActorRef) -> None:
        self.subnets = subnets
        self.ref = ref
        self.changes: list[SubnetChange] = []
        subnets.listen(self.changes.extend)

    @property
    def block(self) -> int | None:
        found = self.subnets.get(450)
        return None if found is None else found.block


@asynccontextmanager
async def syncing(
    nodes: Sequence[ChainEndpoint],
    netuids: tuple[int, ...] = (450,),
    *,
    reset_after_s: float = 0.0,
    forks: list[Fork] | None = None,
) -> AsyncIterator[Syncing]:
    settings = ChainSettings(netuids=netuids, reset_after_s=reset_after_s)
    clock = TrioClock()
    subnets = Subnets(clock, netuids, settings.stall_after_s)

    async def keep(fork: Fork) -> None:
        if forks is not None:
            forks.append(fork)

    spec = ChildSpec(
        "chain", lambda: MetagraphSyncer(nodes, subnets, settings, clock, Random(7), keep_fork=keep), name="chain"
    )
    registry = Registry()
    async with open_system(SupervisorSpec("root", [spec]), registry=registry):
        running = Syncing(subnets, registry.ref(MetagraphSyncer, "chain"))
        await trio.sleep(0.5)
        yield running


async def live(*doubles: ChainDouble) -> None:
    """Blocks come every 12 s, for ever."""
    while True:
        await trio.sleep(12)
        for double in doubles:
            double.head += 1


async def test_it_syncs_at_start_and_follows_the_finalized_head(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    chain = ChainDouble()
    nursery.start_soon(live, chain)
    async with syncing([chain]) as running:
        assert running.block == 1100
        found = running.subnets.get(450)
        assert found is not None
        assert (len(found.neurons), found.endpoint, found.witness) == (256, "double", None)
        await trio.sleep(120)
        assert running.block == 1110
        status = running.subnets.status()
        assert (status.head, status.spec_version, status.network) == (1110, 293, "bittensor")
        assert (status.endpoint, status.error, status.stalled, status.failures) == ("double", "", False, 0)
        assert status.head_age_s is not None
        assert status.head_age_s < 13
        assert status.subnets[0].error == ""


async def test_everything_of_a_sync_is_read_at_the_finalized_hash(autojump_clock: Clock) -> None:
    chain = ChainDouble()
    async with syncing([chain]) as running:
        found = running.subnets.get(450)
        assert found is not None
        assert "0x" + found.block_hash.hex() == chain.hash(1100)


async def test_metadata_is_read_once_and_again_when_the_runtime_was_upgraded(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    chain = ChainDouble()
    nursery.start_soon(live, chain)
    async with syncing([chain]) as running:
        await trio.sleep(60)
        chain.spec_version = 425
        chain.metagraphs["0xc201"] = lambda octets: encoded(
            block=chain.head, trust=[], rank=[], pruning_score=[], tao_dividends_per_hotkey=[]
        )
        await trio.sleep(60)
        found = running.subnets.get(450)
        assert found is not None
        assert found.spec_version == 425
        assert running.block == 1110
        assert found.neurons[0].rank_u16 is None
        assert running.subnets.status().spec_version == 425
        # The metagraph and the metadata are both state calls; the metagraph is read once a block, and so are two
        # headers, the finalized and the best one.
        assert chain.asked.count("state_call") - chain.asked.count("chain_getHeader") / 2 == 2


async def test_the_best_head_is_kept_beside_the_finalized_one(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    chain = ChainDouble()
    answer, best = chain.answer, RpcCall("chain_getHeader", ())

    def ahead(call: RpcCall) -> Json:
        return {"number": hex(chain.head + 3), "parentHash": chain.hash(chain.head)} if call == best else answer(call)

    chain.answer = ahead  # type: ignore[method-assign]
    async with syncing([chain]) as running:
        await trio.sleep(1)
        assert running.subnets.best == chain.head + 3
        chain.head += 1
        await trio.sleep(12)
        status = running.subnets.status()
        assert (status.head, status.best) == (chain.head, chain.head + 3)


async def test_an_unchanged_head_costs_one_call(autojump_clock: Clock) -> None:
    chain = ChainDouble()
    async with syncing([chain]):
        chain.asked.clear()
        await trio.sleep(24)
        assert chain.asked == ["chain_getFinalizedHead"] * 2


async def test_several_subnets_are_kept_and_one_that_does_not_exist_hurts_no_other(autojump_clock: Clock) -> None:
    chain = ChainDouble()
    chain.metagraphs["0x0b00"] = renumbered(11)
    async with syncing([chain], netuids=(450, 451, 11)) as running:
        assert running.subnets.synced == (11, 450)
        status = running.subnets.status()
        assert [subnet.error for subnet in status.subnets] == ["", "the chain has no subnet 451", ""]
        assert [subnet.neurons for subnet in status.subnets] == [256, 0, 256]
        assert status.endpoints["double"].failures == 0


async def test_changes_are_told_to_listeners_and_kept(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    chain = ChainDouble()
    nursery.start_soon(live, chain)
    async with syncing([chain]) as running:
        before = running.subnets.get(450)
        assert before is not None
        assert running.changes == []
        old, new = before.neurons[7].hotkey, bytes(range(32))
        chain.metagraphs["0xc201"] = rehotkeyed(old, new)
        await trio.sleep(12)
        assert running.changes == [Replaced(450, 1101, 7, old, new)]
        assert running.subnets.recent == tuple(running.changes)
        chain.metagraphs["0xc201"] = lambda octets: octets.replace((9999).to_bytes(2, "little"), b"\x10\x27")
        await trio.sleep(12)
        moved = [change for change in running.changes if isinstance(change, AxonMoved)]
        assert [change.axon and change.axon.port for change in moved] == [10_000]
        first, *others = running.subnets.status().changes
        assert first == f"subnet 450 block 1101 uid 7: {ss58.encode(new)} replaced {ss58.encode(old)}"
        assert any(told.endswith("serves at 13.89.38.129 port 10000") for told in others)


async def test_when_an_endpoint_fails_the_next_one_serves_and_the_first_gets_its_place_back(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    one, other = ChainDouble("one"), ChainDouble("other")
    nursery.start_soon(live, one, other)
    one.down = unreachable("one")
    async with syncing([one, other]) as running:
        found = running.subnets.get(450)
        assert found is not None
        assert found.endpoint == "other"
        status = running.subnets.status()
        assert (status.endpoint, status.failures) == ("other", 1)
        assert "no answer" in status.endpoints["one"].last_error
        one.down = None
        await trio.sleep(60)
        assert running.subnets.status().endpoint == "one"
        assert running.block == 1105


async def test_with_every_endpoint_down_the_last_good_state_stays_and_ages(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    chain = ChainDouble()
    async with syncing([chain]) as running:
        chain.down = unreachable()
        await trio.sleep(600)
        assert running.block == 1100
        assert running.subnets.age_s(450) == pytest.approx(600.5, abs=1)
        assert running.subnets.status().error == "double: no answer"
        tries = running.subnets.status().failures
        assert 5 <= tries <= 30
        chain.down, chain.head = None, 1150
        nursery.start_soon(live, chain)
        await trio.sleep(150)
        assert running.block is not None
        assert running.block > 1150
        assert running.subnets.status().error == ""


async def test_a_busy_endpoint_is_left_alone_for_as_long_as_it_asked(autojump_clock: Clock) -> None:
    chain = ChainDouble()
    async with syncing([chain]) as running:
        chain.down = EndpointBusy("double: HTTP 429", 300.0)
        await trio.sleep(12)
        assert running.subnets.status().failures == 1
        await trio.sleep(280)
        assert running.subnets.status().failures == 1
        await trio.sleep(120)
        assert running.subnets.status().failures == 2


async def test_a_head_that_stands_still_is_reported_and_another_endpoint_takes_over(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    stuck, other = ChainDouble("stuck"), ChainDouble("other")
    nursery.start_soon(live, other)
    async with syncing([stuck, other]) as running:
        assert running.subnets.status().endpoint == "stuck"
        await trio.sleep(90)
        status = running.subnets.status()
        assert status.endpoint == "other"
        assert "block 1100" in status.endpoints["stuck"].last_error
        assert running.block is not None
        assert running.block > 1105


async def test_when_no_head_advances_anywhere_the_chain_is_stalled(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    chain = ChainDouble()
    async with syncing([chain]) as running:
        await trio.sleep(90)
        status = running.subnets.status()
        assert status.stalled
        assert "is stalled" in status.error
        nursery.start_soon(live, chain)
        await trio.sleep(130)
        assert not running.subnets.status().stalled
        assert running.block is not None
        assert running.block > 1101


@pytest.mark.parametrize("at", [1090, 1100])
async def test_a_reorganised_chain_is_never_acted_on(autojump_clock: Clock, at: int) -> None:
    chain = ChainDouble()
    async with syncing([chain]) as running:
        held = running.subnets.get(450)
        chain.reorganise(at)
        chain.head += 3
        await trio.sleep(40)
        assert running.subnets.get(450) is held
        assert "does not descend from ours" in running.subnets.status().error
        chain.forks.clear()
        await trio.sleep(150)
        assert running.block == 1103


async def test_an_endpoint_that_lies_behind_is_not_acted_on(autojump_clock: Clock) -> None:
    ahead, behind = ChainDouble("ahead", head=1110), ChainDouble("behind", head=1105)
    async with syncing([ahead, behind]) as running:
        ahead.down = unreachable("ahead")
        await trio.sleep(24)
        assert running.block == 1110
        assert "is behind ours" in running.subnets.status().endpoints["behind"].last_error
        behind.head = 1111
        await trio.sleep(24)
        assert running.block == 1111


async def test_a_head_of_one_endpoint_alone_is_not_acted_on_and_the_others_serve(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    fork, two, three = ChainDouble("fork"), ChainDouble("two"), ChainDouble("three")
    async with syncing([fork, two, three]) as running:
        fork.reorganise(1101)
        nursery.start_soon(live, fork, two, three)
        await trio.sleep(40)
        found = running.subnets.get(450)
        assert found is not None
        assert (found.block, "0x" + found.block_hash.hex()) == (1102, two.hash(1102))
        assert (found.endpoint, found.witness) == ("two", "three")
        status = running.subnets.status()
        assert status.endpoints["fork"].failures > 0
        assert status.endpoints["two"].failures == 0
        assert not status.stalled


async def test_a_witness_on_its_own_fork_is_outvoted_and_told(autojump_clock: Clock) -> None:
    one, fork, three = ChainDouble("one"), ChainDouble("fork"), ChainDouble("three")
    async with syncing([one, fork, three]) as running:
        fork.reorganise(1101)
        for chain in (one, fork, three):
            chain.head += 1
        await trio.sleep(12)
        found = running.subnets.get(450)
        assert found is not None
        assert (found.endpoint, found.witness, found.block) == ("one", "three", 1101)
        status = running.subnets.status()
        assert "fork alone has another finalized block 1101" in status.endpoints["fork"].last_error
        assert status.endpoints["one"].failures == status.endpoints["three"].failures == 0


async def test_while_two_endpoints_differ_about_a_head_none_is_acted_on(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    one, other = ChainDouble("one"), ChainDouble("other")
    async with syncing([one, other]) as running:
        held = running.subnets.get(450)
        other.reorganise(1101)
        nursery.start_soon(live, one, other)
        await trio.sleep(40)
        assert running.subnets.get(450) is held
        assert "is another one at" in running.subnets.status().error
        other.forks.clear()
        await trio.sleep(120)
        assert running.block is not None
        assert running.block >= 1110


async def test_after_heads_differed_one_endpoint_alone_is_not_believed_until_two_agree(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    fork, honest = ChainDouble("fork"), ChainDouble("honest")
    async with syncing([fork, honest]) as running:
        held = running.subnets.get(450)
        fork.reorganise(1101)
        nursery.start_soon(live, fork, honest)
        await trio.sleep(25)
        assert "is another one at" in running.subnets.status().error
        honest.down = unreachable("honest")
        await trio.sleep(600)
        assert running.subnets.get(450) is held
        assert "no second endpoint has its finalized block" in running.subnets.status().endpoints["fork"].last_error
        honest.down = None
        fork.forks.clear()
        await trio.sleep(300)
        assert running.block is not None
        assert running.block >= honest.head - 1
        honest.down = unreachable("honest")
        await trio.sleep(60)
        assert running.block >= fork.head - 1


async def test_a_block_that_is_not_finalized_at_the_witness_contradicts_nothing(autojump_clock: Clock) -> None:
    one, other = ChainDouble("one"), ChainDouble("other")
    async with syncing([one, other]) as running:
        one.head += 1
        other.replace["chain_getBlockHash"] = "0x" + bytes(range(32)).hex()
        await trio.sleep(12)
        assert running.block == 1101
        assert running.subnets.status().endpoints["other"].failures == 0


@pytest.mark.parametrize("fault", [unreachable("other"), EndpointBusy("other: HTTP 429", 30.0)])
async def test_a_witness_that_cannot_be_asked_holds_no_head_up(autojump_clock: Clock, fault: Exception) -> None:
    one, other = ChainDouble("one"), ChainDouble("other")
    async with syncing([one, other]) as running:
        one.head += 1
        other.down = fault
        await trio.sleep(12)
        assert running.block == 1101
        assert running.subnets.status().endpoints["other"].failures == 1
        other.asked.clear()
        one.head += 1
        other.down = None
        await trio.sleep(1)
        assert other.asked == []


async def test_a_witness_that_refuses_the_question_holds_no_head_up(autojump_clock: Clock) -> None:
    one, other = ChainDouble("one"), ChainDouble("other")
    async with syncing([one, other]) as running:
        one.head += 1
        other.refuse["chain_getBlockHash"] = CallRefused(-32601, "Method not found")
        await trio.sleep(12)
        assert running.block == 1101


async def test_a_fork_that_two_endpoints_have_is_followed_once_ours_is_dead(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    one, two, three = ChainDouble("one"), ChainDouble("two"), ChainDouble("three")
    async with syncing([one, two, three]) as running:
        held = running.subnets.get(450)
        for chain in (one, two, three):
            chain.reorganise(1099)
        nursery.start_soon(live, one, two, three)
        await trio.sleep(59)
        assert running.subnets.get(450) is held
        assert "does not descend from ours" in running.subnets.status().error
        await trio.sleep(180)
        found = running.subnets.get(450)
        assert found is not None
        assert found.block >= 1118
        assert "0x" + found.block_hash.hex() == one.hash(found.block)
        assert not running.subnets.status().stalled


async def test_a_fork_that_one_endpoint_alone_has_is_never_followed(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    fork, dead = ChainDouble("fork"), ChainDouble("dead")
    async with syncing([fork, dead]) as running:
        held = running.subnets.get(450)
        fork.reorganise(1100)
        nursery.start_soon(live, fork)
        await trio.sleep(600)
        assert running.subnets.get(450) is held
        error = running.subnets.status().endpoints["fork"].last_error
        assert error == "fork: its finalized block 1100 is another one at dead"


async def test_a_fork_taken_while_nobody_else_could_be_asked_is_left_again(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    fork, two, three = ChainDouble("fork"), ChainDouble("two"), ChainDouble("three")
    fork.reorganise(1100)
    two.down, three.down = unreachable("two"), unreachable("three")
    nursery.start_soon(live, fork, two, three)
    async with syncing([fork, two, three]) as running:
        taken = running.subnets.get(450)
        assert taken is not None
        assert "0x" + taken.block_hash.hex() == fork.hash(1100)
        two.down = three.down = None
        await trio.sleep(300)
        found = running.subnets.get(450)
        assert found is not None
        assert "0x" + found.block_hash.hex() == two.hash(found.block)
        assert found.block >= 1120


async def test_a_second_endpoint_that_gives_the_same_bytes_is_named_as_witness(autojump_clock: Clock) -> None:
    async with syncing([ChainDouble("one"), ChainDouble("other")]) as running:
        found = running.subnets.get(450)
        assert found is not None
        assert (found.endpoint, found.witness) == ("one", "other")


async def test_a_witness_that_is_not_so_far_yet_is_none(autojump_clock: Clock) -> None:
    async with syncing([ChainDouble("one"), ChainDouble("other", head=1099)]) as running:
        found = running.subnets.get(450)
        assert found is not None
        assert found.witness is None
        assert running.subnets.status().endpoints["other"].failures == 0


async def test_a_witness_that_answers_nonsense_is_set_aside_and_holds_nothing_up(autojump_clock: Clock) -> None:
    one, other = ChainDouble("one"), ChainDouble("other")
    other.replace["state_call"] = "0xzz"
    async with syncing([one, other]) as running:
        found = running.subnets.get(450)
        assert found is not None
        assert (found.endpoint, found.witness) == ("one", None)
        assert "broken hex" in running.subnets.status().endpoints["other"].last_error


async def test_answers_that_differ_are_reported_and_never_taken(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    one, other = ChainDouble("one"), ChainDouble("other")
    nursery.start_soon(live, one, other)
    async with syncing([one, other]) as running:
        old = scale()[-40:]
        assert running.block == 1100
        other.metagraphs["0xc201"] = lambda octets: octets.replace(old, bytes(reversed(old)))
        held = running.subnets.get(450)
        await trio.sleep(300)
        assert running.subnets.get(450) is held
        assert "no two endpoints agree (one and other answered)" in running.subnets.status().subnets[0].error
        other.metagraphs["0xc201"] = lambda octets: octets
        await trio.sleep(300)
        assert running.block is not None
        assert running.block >= 1140


async def test_of_three_endpoints_the_two_that_agree_are_believed(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    liar, two, three = ChainDouble("liar"), ChainDouble("two"), ChainDouble("three")
    nursery.start_soon(live, liar, two, three)
    async with syncing([liar, two, three]) as running:
        liar.metagraphs["0xc201"] = lambda octets: octets.replace((9999).to_bytes(2, "little"), b"\x10\x27")
        await trio.sleep(120)
        assert running.block is not None
        assert running.block >= 1108
        found = running.subnets.get(450)
        assert found is not None
        assert (found.endpoint, found.witness) == ("two", "three")
        assert "liar alone differs" in running.subnets.status().endpoints["liar"].last_error
        axon = found.neurons[1].axon
        assert axon is not None
        assert axon.port == 9999


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("chain_getFinalizedHead", None),
        ("chain_getFinalizedHead", "0x1234"),
        ("chain_getFinalizedHead", "0xzz"),
        ("chain_getHeader", None),
        ("chain_getHeader", {"number": "twelve"}),
        ("chain_getHeader", {"number": "-0x1"}),
        ("state_getRuntimeVersion", {"specVersion": "new"}),
        ("system_chain", 5),
        ("state_call", "0x"),
        ("state_call", {"not": "hex"}),
        ("state_call", "0x" + scale()[:-1].hex()),
        ("state_call", "0x" + scale().hex()),
    ],
)
async def test_a_malformed_answer_leaves_the_last_good_state(
    autojump_clock: Clock, method: str, answer: object
) -> None:
    chain = ChainDouble()
    async with syncing([chain]) as running:
        held = running.subnets.get(450)
        chain.head += 1
        chain.replace[method] = answer
        await trio.sleep(60)
        assert running.subnets.get(450) is held
        assert running.subnets.status().failures > 0
        assert running.subnets.status().error != ""
        chain.replace.clear()
        await trio.sleep(150)
        assert running.block == 1101


async def test_a_refused_call_is_reported_and_tried_again(autojump_clock: Clock) -> None:
    chain = ChainDouble()
    async with syncing([chain]) as running:
        chain.head += 1
        chain.refuse["state_call"] = CallRefused(4003, "State already discarded for 0x12")
        await trio.sleep(13)
        assert "State already discarded" in running.subnets.status().subnets[0].error
        chain.refuse.clear()
        await trio.sleep(30)
        assert running.block == 1101
        assert running.subnets.status().subnets[0].error == ""


async def test_a_runtime_without_metadata_v15_is_a_clear_error(autojump_clock: Clock) -> None:
    chain = ChainDouble()
    chain.refuse["state_call"] = CallRefused(-32000, "no such version")
    async with syncing([chain]) as running:
        assert "runtime 293" in running.subnets.status().error
        assert running.subnets.synced == ()
        chain.refuse.clear()
        chain.replace["state_call"] = "0x" + metadata().replace(b"get_metagraph", b"got_metagraph").hex()
        await trio.sleep(30)
        assert f"has no {METAGRAPH}" in running.subnets.status().error


@may_crash(RuntimeError)
async def test_a_restart_of_the_syncer_keeps_the_view_and_goes_on(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    chain = ChainDouble()
    nursery.start_soon(live, chain)
    async with syncing([chain]) as running:
        held = running.subnets.get(450)
        chain.down = RuntimeError("injected")
        with pytest.raises(ActorDown):
            await running.ref.call(Poll())
        chain.down = None
        assert running.subnets.get(450) is held
        await trio.sleep(25)
        assert running.block == 1102


@may_crash(RuntimeError)
async def test_a_restart_of_the_syncer_asks_no_endpoint_that_is_set_aside(autojump_clock: Clock) -> None:
    busy, other = ChainDouble("busy"), ChainDouble("other")
    async with syncing([busy, other]) as running:
        busy.down = EndpointBusy("busy: HTTP 429", 300.0)
        busy.head += 1
        await trio.sleep(12)
        busy.down, other.down = None, RuntimeError("injected")
        busy.asked.clear()
        with pytest.raises(ActorDown):
            await running.ref.call(Poll())
        other.down = None
        await trio.sleep(60)
        assert busy.asked == []


async def test_a_poll_can_be_asked_for_and_is_answered_when_it_is_done(autojump_clock: Clock) -> None:
    chain = ChainDouble()
    async with syncing([chain]) as running:
        chain.head += 1
        await running.ref.call(Poll())
        assert running.block == 1101


async def test_an_endpoint_that_hangs_holds_up_no_shutdown(autojump_clock: Clock) -> None:
    chain = ChainDouble()
    chain.delay_s = 3_600.0
    async with syncing([chain]):
        stopped_at = trio.current_time()
    assert trio.current_time() == stopped_at


async def test_the_recorded_chain_syncs_without_any_network(autojump_clock: Clock) -> None:
    async with syncing([RecordedEndpoint(TrioClock())]) as running:
        first = running.block
        await trio.sleep(61)
        assert first is not None
        assert running.block == first + 5
        status = running.subnets.status()
        assert (status.network, status.endpoint, status.error) == (RECORDED_NETWORK, "recording", "")


async def test_a_chain_without_endpoints_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one endpoint"):
        MetagraphSyncer([], Subnets(TrioClock(), (450,), 60.0), ChainSettings(), TrioClock(), Random(7))
