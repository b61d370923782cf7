"""A runtime upgrade under the client: other indices, shapes and extensions, told by nothing but the new metadata."""

from collections.abc import Callable, Sequence

import msgspec
import pytest
import trio
import trio.testing

from engram.chain.errors import AnswerMalformed, CallNotComposable, NeverIncluded, RefusedInBlock, SubmitRefused
from engram.chain.model import Metagraph
from engram.chain.read.codec import Codec
from engram.chain.read.commitments import read_commitment
from engram.chain.read.node import Json, RpcCall
from engram.chain.read.runtime import Era
from engram.chain.read.view import View, open_view, view_at
from engram.chain.submit import calls
from engram.chain.submit.submit_extrinsic import InclusionWait, submit
from engram.chain.submit.weights import holds, plan, upscale
from engram.hotkeys import Keypair
from tests.chain.samples import metadata as recorded_metadata
from tests.chain.test_actor import syncing
from tests.fakes import metadata_v15, newer_runtime
from tests.fakes.living_chain import LivingChain
from tests.fakes.newer_runtime import NEW_EXTENSIONS, SPEC_VERSION, UpgradingChain

Clock = trio.testing.MockClock
QUICK = InclusionWait(poll_s=0.01, patience_s=5.0)
ALICE, MINER, STRANGER = (Keypair.from_uri(uri) for uri in ("//Alice", "//sn450//hot//7", "//nobody"))
NEWER = bytes.fromhex(newer_runtime.metadata()[2:])


def lasting(metagraph: Metagraph) -> Metagraph:
    """What an upgrade does not change."""
    neurons = tuple(
        msgspec.structs.replace(one, trust_u16=None, rank_u16=None, pruning_score_u16=None) for one in metagraph.neurons
    )
    return msgspec.structs.replace(
        metagraph, neurons=neurons, block=0, block_hash=b"", spec_version=0, read_at_s=0.0, endpoint="", witness=None
    )


async def metagraph_of(chain: UpgradingChain) -> Metagraph:
    return await (await open_view([chain])).metagraph(450, 0.0)


class OnceSent:
    """The chain's node, which does something as soon as an extrinsic was taken."""

    def __init__(self, chain: UpgradingChain, then: Callable[[], None]) -> None:
        self.name = chain.name
        self._chain = chain
        self._then = then

    async def ask(self, calls: Sequence[RpcCall]) -> list[Json]:
        answers = await self._chain.ask(calls)
        if calls[0].method == "author_submitExtrinsic":
            self._then()
        return answers


# --- the double ------------------------------------------------------------------------------------------------------


def test_the_recorded_metadata_is_read_and_written_byte_for_byte() -> None:
    assert metadata_v15.write(metadata_v15.read(recorded_metadata())) == recorded_metadata()


def test_the_newer_runtime_is_another_one_in_every_respect() -> None:
    assert recorded_metadata() != NEWER
    older, newer = Codec(recorded_metadata(), 293, 1), Codec(NEWER, SPEC_VERSION, 1)
    chain = UpgradingChain()
    scales = [bytes.fromhex(str(chain.metagraph("0xc201", 1100, chain.hash(1100)))[2:])]
    chain.upgrade()
    scales.append(bytes.fromhex(str(chain.metagraph("0xc201", 1101, chain.hash(1101)))[2:]))
    assert older.decode_fields(scales[0]) is not None
    assert newer.decode_fields(scales[1]) is not None
    for codec, scale in ((newer, scales[0]), (older, scales[1])):
        with pytest.raises(AnswerMalformed):
            codec.decode_fields(scale)


# --- reading ---------------------------------------------------------------------------------------------------------


async def test_the_subnet_is_the_same_in_the_newer_shapes() -> None:
    chain = UpgradingChain()
    before = await metagraph_of(chain)
    chain.upgrade()
    after = await metagraph_of(chain)
    assert (before.spec_version, after.spec_version) == (293, SPEC_VERSION)
    assert before.neurons[0].rank_u16 is not None
    assert after.neurons[0].rank_u16 is None
    assert lasting(before) == lasting(after)


async def test_the_syncer_reads_the_types_again_and_goes_on(autojump_clock: Clock) -> None:
    chain = UpgradingChain()
    async with syncing([chain]) as running:
        await trio.sleep(60)
        before, asked = running.subnets.get(450), chain.asked.count("state_call")
        assert before is not None
        assert before.spec_version == 293
        chain.upgrade()
        await trio.sleep(60)
        after = running.subnets.get(450)
        assert after is not None
        assert after.spec_version == SPEC_VERSION
        assert after.block > before.block + 3
        assert lasting(after) == lasting(before)
        status = running.subnets.status()
        assert (status.spec_version, status.error, status.failures) == (SPEC_VERSION, "", 0)
        assert running.changes == []
        looks = after.block - before.block - 1  # One block is the upgrade's own.
        assert chain.asked.count("state_call") - asked <= looks + 1


async def test_the_last_state_stays_while_the_new_types_cannot_be_read(autojump_clock: Clock) -> None:
    chain = UpgradingChain()
    async with syncing([chain]) as running:
        await trio.sleep(30)
        chain.upgrade()
        chain.replace["state_call"] = "0x00"
        await trio.sleep(60)
        held = running.subnets.get(450)
        assert held is not None
        assert held.spec_version == 293
        assert "metadata of version 15" in running.subnets.status().error
        del chain.replace["state_call"]
        await trio.sleep(120)
        held = running.subnets.get(450)
        assert held is not None
        assert held.spec_version == SPEC_VERSION


# --- writing ---------------------------------------------------------------------------------------------------------


async def test_calls_are_composed_by_their_new_indices_and_extensions() -> None:
    chain = UpgradingChain()
    older = await open_view([chain])
    chain.upgrade()
    newer = await open_view([chain])
    call = calls.set_commitment(450, b"13.89.38.129:9999")
    assert (older.types.compose(call)[:2], newer.types.compose(call)[:2]) == (b"\x12\x00", b"\x58\x64")
    assert [one["identifier"] for one in metadata_v15.read(newer.metadata)["extrinsic"]["extensions"]][-4:-1] == list(
        NEW_EXTENSIONS
    )
    era = Era(newer.head.number, newer.head.hash)
    payloads = [view.types.signature_payload(b"\x00", 0, era, b"g" * 32) for view in (older, newer)]
    assert payloads[0] != payloads[1]


async def test_a_commitment_is_written_and_read_back_after_the_upgrade() -> None:
    chain = UpgradingChain()
    chain.upgrade()
    view = await open_view([chain])
    done = await submit(view, [chain], calls.set_commitment(450, b"[2001:db8::1]:9999"), MINER, QUICK)
    found = await read_commitment(await view_at(chain, done.block.hash, view), 450, MINER.public_key)
    assert found is not None
    assert (found.payload, found.block) == (b"[2001:db8::1]:9999", done.block.number)


async def test_a_refusal_has_its_name_after_its_index_has_moved() -> None:
    chain = UpgradingChain()
    chain.upgrade()
    view = await open_view([chain])
    with pytest.raises(RefusedInBlock, match="AccountNotAllowedCommit"):
        await submit(view, [chain], calls.set_commitment(450, b"13.89.38.129:9999"), STRANGER, QUICK)
    with pytest.raises(RefusedInBlock, match="NeuronNoValidatorPermit"):
        await submit(view, [chain], calls.set_weights(450, (3,), (65_535,), 0), MINER, QUICK)


async def test_what_was_signed_for_the_old_runtime_is_refused_by_the_new_one() -> None:
    chain = UpgradingChain()
    view = await open_view([chain])
    chain.upgrade()
    with pytest.raises(SubmitRefused):
        await submit(view, [chain], calls.set_commitment(450, b"13.89.38.129:9999"), MINER, QUICK)


async def test_what_an_upgrade_drops_from_the_pool_is_never_told_as_written() -> None:
    chain = UpgradingChain()
    view = await open_view([chain])

    node = OnceSent(chain, chain.upgrade)
    with pytest.raises(NeverIncluded):
        await submit(View(node, view.reading, view.metadata), [node], calls.set_commitment(450, b"x"), MINER, QUICK)


async def test_a_call_in_the_last_block_of_the_old_runtime_is_judged_by_the_types_of_that_block() -> None:
    chain = UpgradingChain()
    chain.seal_at_look = False
    view = await open_view([chain])

    def seal_and_upgrade() -> None:
        chain.seal()
        chain.upgrade()

    node = OnceSent(chain, seal_and_upgrade)
    with pytest.raises(RefusedInBlock, match="AccountNotAllowedCommit"):
        await submit(View(node, view.reading, view.metadata), [node], calls.set_commitment(450, b"x"), STRANGER, QUICK)


async def test_weights_are_committed_by_the_newer_call() -> None:
    chain = UpgradingChain()
    chain.put(True, "SubtensorModule", "CommitRevealWeightsEnabled", 450)
    chain.upgrade()
    view = await open_view([chain])
    metagraph = await view.metagraph(450, 0.0)
    parameters = msgspec.structs.replace(metagraph.parameters, commit_reveal_weights_enabled=True)
    metagraph = msgspec.structs.replace(metagraph, parameters=parameters)
    made = await plan(view, metagraph, upscale({3: 1.0}, metagraph), ALICE.public_key, 0, 1_763_000_000.0)
    assert made.call.function == "commit_timelocked_weights"
    assert made.call.arguments["commit_reveal_version"] == 6
    done = await submit(view, [chain], made.call, ALICE, QUICK)
    assert await holds(await view_at(chain, done.block.hash, view), made, 450, 0)


# --- a runtime that asks for more than the codec knows ---------------------------------------------------------------


class ExtendedChain(LivingChain):
    """Every signature must cover something that nobody here has heard of."""

    def answer(self, call: RpcCall) -> Json:
        if call.method != "state_call" or call.params[0] != "Metadata_metadata_at_version":
            return super().answer(call)
        tree = metadata_v15.read(recorded_metadata())
        number = next(one["id"] for one in tree["types"] if one["type"]["definition"] == {"primitive": 5})
        unit = next(one["id"] for one in tree["types"] if one["type"]["definition"] == {"tuple": []})
        extension = {"identifier": "CheckQuantumProof", "type": number, "additional": unit}
        tree["extrinsic"]["extensions"].append(extension)
        return "0x" + metadata_v15.write(tree).hex()


async def test_a_signed_extension_that_the_codec_does_not_know_is_told_by_its_name() -> None:
    chain = ExtendedChain()
    view = await open_view([chain])
    with pytest.raises(CallNotComposable, match="CheckQuantumProof"):
        await submit(view, [chain], calls.set_commitment(450, b"a:1"), Keypair.from_uri("//sn450//hot//7"))
    assert "author_submitExtrinsic" not in chain.asked
