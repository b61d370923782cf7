"""Composing, signing, sending and reading back: the recorded flows byte for byte, and a chain that lives."""

import gzip
import json
from functools import cache
from typing import Any

import pytest
import trio

from engram.chain.errors import (
    AnswerMalformed,
    CallNotComposable,
    CallRefused,
    EndpointBusy,
    EndpointUnreachable,
    NeverIncluded,
    OutcomeUnknown,
    RefusedInBlock,
    SubmitRefused,
)
from engram.chain.read.commitments import read_commitment
from engram.chain.read.node import RpcCall
from engram.chain.read.runtime import Era, RuntimeCall, RuntimeTypes
from engram.chain.read.view import open_view
from engram.chain.submit import calls
from engram.chain.submit.pool_refusals import pool_refusal
from engram.chain.submit.submit_extrinsic import Included, InclusionWait, submit
from engram.hotkeys import Keypair, ss58, verify
from tests.chain.samples import DATA, metadata
from tests.fakes.living_chain import LivingChain

QUICK = InclusionWait(poll_s=0.01, patience_s=5.0)
REGISTERED = "//sn450//hot//7"


@cache
def types() -> RuntimeTypes:
    return RuntimeTypes(metadata(), 293, 1)


@cache
def flows() -> list[dict[str, Any]]:
    found = json.loads(gzip.decompress((DATA / "commitment-flows.json.gz").read_bytes()))
    flows: list[dict[str, Any]] = found["flows"]
    return flows


def octets(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


@cache
def keypair(uri: str) -> Keypair:
    return Keypair.from_uri(uri)


# the recorded flows


@pytest.mark.parametrize("flow", flows(), ids=lambda flow: flow["name"])
def test_a_recorded_flow_is_composed_byte_for_byte(flow: dict[str, Any]) -> None:
    call = types().compose(calls.set_commitment(flow["netuid"], octets(flow["blob"])))
    assert call == octets(flow["call_data"])
    era = Era(flow["era"]["current"], octets(flow["era"]["birth_block_hash"]))
    payload = types().signature_payload(call, flow["nonce"], era, octets(flow["genesis_hash"]))
    assert payload == octets(flow["signed_payload"])
    signer = ss58.decode(flow["signer"])
    signature = octets(flow["extrinsic"])[2 + 1 + 1 + 32 + 1 :][:64]
    refused = "badProof" in flow["name"]
    assert verify(signer, payload, signature, allow_wrapped=False) is not refused
    signed = types().extrinsic(call, signer, signature, flow["nonce"], era)
    assert signed.octets == octets(flow["extrinsic"])
    assert signed.hash == octets(flow["extrinsic_hash"])


@pytest.mark.parametrize("flow", flows(), ids=lambda flow: flow["name"])
def test_a_recorded_block_says_how_it_ended(flow: dict[str, Any]) -> None:
    events = [event for event in types().events(octets(flow["events"])) if event.extrinsic == 1]
    ends = [event for event in events if event.name.startswith("Extrinsic")]
    if "badProof" in flow["name"]:
        error = flow["submit_answer"]["error"]
        assert pool_refusal(CallRefused(error["code"], error["message"])).reason == "badProof"
        assert ends == []
    elif "AccountNotAllowedCommit" in flow["name"]:
        name, explanation = types().refusal(ends[0])
        assert name == "AccountNotAllowedCommit"
        assert explanation == "Account is not allowed to make commitments to the chain"
    else:
        assert [event.name for event in ends] == ["ExtrinsicSuccess"]
        assert ("Commitments", "Commitment") in [(event.pallet, event.name) for event in events]


def test_the_double_answers_the_recorded_flows_as_the_runtime_did() -> None:
    chain = LivingChain()
    chain.seal_at_look = False
    for flow in flows():
        chain.hashes[flow["era"]["current"]] = flow["era"]["birth_block_hash"]
        chain.nonces.setdefault(ss58.decode(flow["signer"]), flow["nonce"])
    for flow in flows():
        assert chain.head == flow["era"]["current"]
        answer = chain.answer(RpcCall("author_submitExtrinsic", (flow["extrinsic"],)))
        if "error" in flow["submit_answer"]:
            assert isinstance(answer, CallRefused)
            assert (answer.code, answer.message) == tuple(flow["submit_answer"]["error"].values())
        else:
            assert answer == flow["submit_answer"]["result"]
        chain.seal()
        events = chain.states[chain.head][chain._key("System", "Events")]
        assert types().events(octets(events or "")) == types().events(octets(flow["events"]))
        block = chain.answer(RpcCall("chain_getBlock", (chain.hash(chain.head),)))
        assert isinstance(block, dict)
        assert block["block"]["extrinsics"][1:] == flow["block"]["block"]["extrinsics"][1:]
        assert chain._held(flow["commitment_key"]) == flow["commitment_after"]


# the chain that lives


async def commit(chain: LivingChain, uri: str = REGISTERED, text: bytes = b"13.89.38.129:9999") -> Included:
    view = await open_view([chain])
    return await submit(view, [chain], calls.set_commitment(450, text), keypair(uri), QUICK)


async def test_a_commit_is_told_from_the_finalized_block_that_holds_it() -> None:
    chain = LivingChain()
    done = await commit(chain)
    assert done.block.number in chain.blocks
    assert "0x" + done.block.hash.hex() == chain.hash(done.block.number)
    assert chain.asked.count("author_submitExtrinsic") == 1
    chain.seal_at_look = False
    held = await read_commitment(await open_view([chain]), 450, keypair(REGISTERED).public_key)
    assert held is not None
    assert (held.payload, held.block) == (b"13.89.38.129:9999", done.block.number)


async def test_a_refusal_inside_the_block_is_told_by_its_name() -> None:
    with pytest.raises(RefusedInBlock) as told:
        await commit(LivingChain(), "//nobody")
    assert told.value.name == "AccountNotAllowedCommit"
    assert told.value.block > 1100


async def test_31_commits_fit_into_an_epoch_and_the_next_is_refused_by_name() -> None:
    chain = LivingChain()
    chain.tempo = 10_000
    view = await open_view([chain])
    for number in range(31):
        await submit(view, [chain], calls.set_commitment(450, b"%d" % number), keypair(REGISTERED), QUICK)
        view = await open_view([chain])
    with pytest.raises(RefusedInBlock, match="SpaceLimitExceeded"):
        await submit(view, [chain], calls.set_commitment(450, b"32"), keypair(REGISTERED), QUICK)


async def test_two_that_commit_at_once_with_one_key_are_both_told_the_truth() -> None:
    chain = LivingChain()
    told: dict[bytes, Included] = {}

    async def one(text: bytes) -> None:
        told[text] = await commit(chain, text=text)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, b"13.89.38.129:1")
        nursery.start_soon(one, b"13.89.38.129:2")
    assert {done.nonce for done in told.values()} == {0, 1}
    last = max(told, key=lambda text: told[text].nonce)
    held = await read_commitment(await open_view([chain]), 450, keypair(REGISTERED).public_key)
    assert held is not None
    assert held.payload == last


async def test_a_nonce_that_stays_taken_is_refused_and_nothing_is_resent() -> None:
    chain = LivingChain()
    chain.replace["system_accountNextIndex"] = 0
    chain.nonces[keypair(REGISTERED).public_key] = 5
    with pytest.raises(SubmitRefused) as told:
        await commit(chain)
    assert told.value.reason == "stale"
    assert chain.pool == []


async def test_a_broken_answer_to_the_sending_is_resolved_by_looking() -> None:
    class Broken(LivingChain):
        async def ask(self, asked: Any) -> Any:
            answers = await super().ask(asked)
            if asked[0].method == "author_submitExtrinsic":
                raise AnswerMalformed("truncated")
            return answers

    chain = Broken()
    done = await commit(chain)
    assert chain.asked.count("author_submitExtrinsic") == 1
    assert done.block.number in chain.blocks


async def test_an_answer_cut_off_after_the_sending_is_resolved_by_looking() -> None:
    class Cut(LivingChain):
        async def ask(self, asked: Any) -> Any:
            answers = await super().ask(asked)
            if asked[0].method == "author_submitExtrinsic":
                raise EndpointUnreachable("cut off")
            return answers

    chain = Cut()
    done = await commit(chain)
    assert chain.asked.count("author_submitExtrinsic") == 1
    assert done.block.number in chain.blocks


async def test_an_error_that_does_not_say_it_was_not_taken_is_resolved_by_looking() -> None:
    class Failing(LivingChain):
        async def ask(self, asked: Any) -> Any:
            answers = await super().ask(asked)
            if asked[0].method == "author_submitExtrinsic":
                return [CallRefused(-32603, "Internal error: upstream timed out")]
            return answers

    chain = Failing()
    done = await commit(chain)
    assert chain.asked.count("author_submitExtrinsic") == 1
    assert done.block.number in chain.blocks


async def test_an_upgrade_whose_metadata_is_refused_after_the_sending_is_no_failure() -> None:
    class Upgrading(LivingChain):
        async def ask(self, asked: Any) -> Any:
            answers = await super().ask(asked)
            if asked[0].method == "author_submitExtrinsic":
                self.spec_version = 294
                self.refuse["state_call"] = CallRefused(-32000, "Client error: Execution failed")
            return answers

    view = await open_view([chain := Upgrading()])
    with pytest.raises(OutcomeUnknown, match="Execution failed"):
        await submit(view, [chain], calls.set_commitment(450, b"1"), keypair(REGISTERED), InclusionWait(0.01, 0.2))


async def test_a_server_that_runs_no_such_call_did_not_take_it() -> None:
    chain = LivingChain()
    chain.refuse["author_submitExtrinsic"] = CallRefused(-32601, "Method not found")
    with pytest.raises(SubmitRefused, match="-32601"):
        await commit(chain)


async def test_nothing_sent_is_told_at_once() -> None:
    class Refusing(LivingChain):
        async def ask(self, asked: Any) -> Any:
            if asked[0].method == "author_submitExtrinsic":
                raise EndpointUnreachable("not connected", may_have_arrived=False)
            return await super().ask(asked)

    with pytest.raises(EndpointUnreachable, match="not connected"):
        await commit(Refusing())


async def test_an_endpoint_that_is_busy_did_not_take_it() -> None:
    class Busy(LivingChain):
        async def ask(self, asked: Any) -> Any:
            if asked[0].method == "author_submitExtrinsic":
                raise EndpointBusy("HTTP 429")
            return await super().ask(asked)

    with pytest.raises(EndpointBusy):
        await commit(Busy())


async def test_what_was_taken_and_never_included_is_told_once_its_era_has_passed() -> None:
    chain = LivingChain()
    chain.drop_submissions = True
    with pytest.raises(NeverIncluded, match="1102 to 1165"):
        await commit(chain)
    assert chain.asked.count("author_submitExtrinsic") == 1


async def test_a_block_that_is_reorganised_away_is_never_told_of() -> None:
    class Reorganising(LivingChain):
        gone: int | None = None

        def seal(self) -> None:
            super().seal()
            if self.gone is None and self.blocks[self.head]:
                self.gone = self.head
                super().seal()
                self.reorganise(self.gone)
                self.include = False
                super().seal()
                self.include = True

    chain = Reorganising()
    chain.lag = 3
    for _ in range(3):
        chain.seal()
    done = await commit(chain)
    assert chain.gone is not None
    assert done.block.number > chain.gone
    assert "0x" + done.block.hash.hex() == chain.hash(done.block.number)
    assert chain.asked.count("author_submitExtrinsic") == 1


async def test_patience_that_ends_is_unknown_and_not_a_failure(autojump_clock: Any) -> None:
    chain = LivingChain()
    chain.seal_at_look = False
    view = await open_view([chain])
    call = calls.set_commitment(450, b"13.89.38.129:9999")
    with pytest.raises(OutcomeUnknown, match="may be included until block 1164") as told:
        await submit(view, [chain], call, keypair(REGISTERED))
    assert len(told.value.extrinsic_hash) == 32


async def test_an_endpoint_that_fails_while_it_is_watched_is_replaced_by_another(autojump_clock: Any) -> None:
    chain, other = LivingChain("one"), LivingChain("two")
    view = await open_view([chain])
    other.head, other.states = chain.head, {**chain.states}
    chain.pool = other.pool
    submitted = chain._submit

    def submit_and_fall(extrinsic: bytes) -> Any:
        answer = submitted(extrinsic)
        other.pool = list(chain.pool)
        chain.down = EndpointUnreachable("gone")
        return answer

    chain._submit = submit_and_fall  # type: ignore[method-assign,assignment] # the double falls over after it took it
    done = await submit(view, [chain, other], calls.set_commitment(450, b"x"), keypair(REGISTERED))
    assert done.block.number in other.blocks


async def test_a_runtime_without_the_call_is_a_clear_error() -> None:
    with pytest.raises(CallNotComposable, match=r"runtime 293: Commitments\.set_nothing"):
        types().compose(RuntimeCall("Commitments", "set_nothing", {}))
    with pytest.raises(CallNotComposable, match="at most 128 bytes"):
        calls.set_commitment(450, b"x" * 129)
    with pytest.raises(CallNotComposable):
        types().storage_key("Commitments", "Nothing")


@pytest.mark.parametrize("answer", [None, -1, "1", {"a": 1}, 2**32, 2**70])
async def test_a_nonce_that_is_none_is_refused(answer: Any) -> None:
    chain = LivingChain()
    chain.replace["system_accountNextIndex"] = answer
    with pytest.raises(AnswerMalformed):
        await commit(chain)


# no endpoint is believed alone where there are more


class Sharing:
    """A second endpoint of the same chain; `answers` puts other answers, by method, in the place of the true ones."""

    def __init__(self, chain: LivingChain, name: str, **answers: Any) -> None:
        self.chain = chain
        self.name = name
        self.answers = answers

    async def ask(self, asked: Any) -> Any:
        answers = await self.chain.ask(asked)
        return [self.answers.get(call.method, answer) for call, answer in zip(asked, answers, strict=True)]


EMPTY_BLOCK: dict[str, Any] = {"block": {"extrinsics": []}}
SHORT = InclusionWait(poll_s=0.01, patience_s=1.0)


async def test_a_503_after_the_sending_is_resolved_by_looking() -> None:
    class Proxied(LivingChain):
        async def ask(self, asked: Any) -> Any:
            answers = await super().ask(asked)
            if asked[0].method == "author_submitExtrinsic":
                raise EndpointBusy("HTTP 503", may_have_arrived=True)
            return answers

    chain = Proxied()
    done = await commit(chain)
    assert chain.asked.count("author_submitExtrinsic") == 1
    assert done.block.number in chain.blocks


async def test_an_endpoint_with_empty_blocks_alone_never_makes_it_never_included() -> None:
    chain = LivingChain()
    empty = Sharing(chain, "empty", chain_getBlock=EMPTY_BLOCK)
    view = await open_view([empty])
    done = await submit(view, [empty, chain], calls.set_commitment(450, b"x"), keypair(REGISTERED), QUICK)
    assert done.block.number in chain.blocks


async def test_an_era_that_only_one_endpoint_can_show_is_unknown(autojump_clock: Any) -> None:
    chain = LivingChain()
    chain.drop_submissions = True
    silent = Sharing(chain, "silent", chain_getBlock=CallRefused(4003, "State already discarded"))
    view = await open_view([chain])
    with pytest.raises(OutcomeUnknown, match="may be included until"):
        await submit(view, [chain, silent], calls.set_commitment(450, b"x"), keypair(REGISTERED), SHORT)


async def test_an_era_that_two_endpoints_show_empty_is_told() -> None:
    chain = LivingChain()
    chain.drop_submissions = True
    view = await open_view([chain])
    with pytest.raises(NeverIncluded):
        await submit(view, [chain, Sharing(chain, "two")], calls.set_commitment(450, b"x"), keypair(REGISTERED), QUICK)


@pytest.mark.parametrize("answer", ["chain_getBlockHash", "state_getStorage"])
async def test_an_inclusion_that_a_second_endpoint_contradicts_is_unknown(answer: str, autojump_clock: Any) -> None:
    chain = LivingChain()
    other = Sharing(chain, "other")
    view = await open_view([chain])
    other.answers = {answer: "0x" + "07" * 32}
    with pytest.raises(OutcomeUnknown, match="may be included until"):
        await submit(view, [chain, other], calls.set_commitment(450, b"x"), keypair(REGISTERED), SHORT)


@pytest.mark.parametrize("code", [1012, 1013])
async def test_what_a_pool_has_seen_already_is_looked_for_in_the_blocks(code: int) -> None:
    class Repeated(LivingChain):
        """Something on the way sends everything twice, and passes on the second answer."""

        def _submit(self, octets: bytes) -> Any:
            super()._submit(octets)
            return CallRefused(code, "Transaction is temporarily banned" if code == 1012 else "Already Imported")

    chain = Repeated()
    view = await open_view([chain])
    done = await submit(view, [chain], calls.set_commitment(450, b"a:1"), keypair(REGISTERED), QUICK)
    assert done.block.number in chain.blocks
