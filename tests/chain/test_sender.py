"""Writing to the chain as a program does it, without the command line: decide, send, read back."""

from pathlib import Path

import pytest

from engram.chain.errors import (
    AnotherNetwork,
    CallNotComposable,
    CommitReplaced,
    CommittedInEpoch,
    NotHeld,
    NotPaid,
    WeightsRejected,
)
from engram.chain.model import RAO_PER_TAO
from engram.chain.read.runtime import Value
from engram.chain.read.view import open_view, view_at
from engram.chain.registry import publish
from engram.chain.registry.commitment_fields import raw_field, read_fields
from engram.chain.registry.hotkey_status import hotkey_status, read_facts
from engram.chain.submit import calls
from engram.chain.submit.kept_commits import KeptCommits
from engram.chain.submit.register import RegistrationTerms, read_terms, register, require_payable
from engram.chain.submit.sender import Sender
from engram.chain.submit.set_weights import propose, set_weights
from engram.chain.submit.submit_extrinsic import InclusionWait
from engram.clock import ManualClock
from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from tests.fakes.living_chain import LivingChain

SUBTENSOR = "SubtensorModule"
VALIDATOR, MINER = Keypair.from_uri("//Alice"), Keypair.from_uri("//sn450//hot//7")
COLDKEY = Keypair.from_uri("//sn450//cold//7")
QUICK = InclusionWait(poll_s=0.01, patience_s=5.0)


def chain_of_open_weights() -> LivingChain:
    chain = LivingChain()
    chain.put(0, SUBTENSOR, "WeightsSetRateLimit", 450)
    chain.put(False, SUBTENSOR, "CommitRevealWeightsEnabled", 450)
    return chain


async def test_weights_are_proposed_sent_and_held_by_the_block_that_is_named(tmp_path: Path) -> None:
    chain = chain_of_open_weights()
    view = await open_view([chain])
    proposal = await propose(view, 450, VALIDATOR.public_key, {3: 0.7, 9: 0.35}, None, ManualClock())
    assert (proposal.uid, proposal.objections) == (0, [])
    done = await set_weights(Sender([chain], waiting=QUICK), view, proposal, VALIDATOR, KeptCommits(tmp_path))
    assert done.block.number > view.head.number
    assert chain.get(SUBTENSOR, "Weights", 450, 0) == [(3, 65_535), (9, 32_768)]


async def test_weights_that_the_chain_would_refuse_are_not_sent(tmp_path: Path) -> None:
    chain = chain_of_open_weights()
    view = await open_view([chain])
    proposal = await propose(view, 450, MINER.public_key, {3: 1.0}, None, ManualClock())
    with pytest.raises(WeightsRejected, match="NeuronNoValidatorPermit") as refused:
        await set_weights(Sender([chain], waiting=QUICK), view, proposal, MINER, KeptCommits(tmp_path))
    assert refused.value.objections == proposal.objections
    assert "author_submitExtrinsic" not in chain.asked


async def test_nothing_is_signed_for_another_network_than_the_one_that_was_named() -> None:
    chain = LivingChain()
    chain.hashes[0] = "0x2f0555cc76fc2840a25a6ea3b9637146806f1f44b090c175ffde2a7e5ab36c03"
    view = await open_view([chain])
    with pytest.raises(AnotherNetwork, match="serves finney, not test"):
        await Sender([chain], network="test", waiting=QUICK).send(view, calls.set_commitment(450, b"a:1"), MINER)
    assert "author_submitExtrinsic" not in chain.asked


async def test_an_axon_that_the_block_holds_otherwise_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = LivingChain()
    monkeypatch.setitem(chain._calls, "serve_axon", lambda who, arguments: None)
    view = await open_view([chain])
    call = calls.serve_axon(450, "13.89.38.129", 8091, 1)
    with pytest.raises(NotHeld, match=r"included in block \d+, but the chain holds"):
        await publish.announce(Sender([chain], waiting=QUICK), view, 450, call, MINER)


async def test_a_commitment_that_another_replaces_in_its_block_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = LivingChain()
    commit = chain._calls["set_commitment"]

    def replaced(who: bytes, arguments: dict[str, object]) -> None:
        commit(who, {**arguments, "info": {"fields": [{"Raw3": "0x623a32"}]}})

    monkeypatch.setitem(chain._calls, "set_commitment", replaced)
    view = await open_view([chain])
    with pytest.raises(CommitReplaced, match="b:2"):
        await publish.commit(Sender([chain], waiting=QUICK), view, 450, "a:1", MINER)


ENDPOINT, ROOT_FIELD, FOREIGN = (
    raw_field(b"13.89.38.129:1"),
    raw_field(b"engram-relay:1:" + b"ab" * 32),
    {"Sha256": "0x" + "ab" * 32},
)
MOVED = raw_field(b"13.89.38.129:2")


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ([ENDPOINT, ROOT_FIELD, FOREIGN], [MOVED, ROOT_FIELD, FOREIGN]),
        ([ROOT_FIELD], [MOVED, ROOT_FIELD]),
        ([FOREIGN, ENDPOINT], [MOVED, FOREIGN]),
    ],
    ids=["beside a root", "behind a root", "behind a hash"],
)
async def test_an_endpoint_is_committed_first_and_the_fields_of_others_stay(
    held: list[Value], expected: list[Value]
) -> None:
    chain = LivingChain()
    chain.put(
        {"deposit": 0, "block": 1, "info": {"fields": held}}, "Commitments", "CommitmentOf", 450, MINER.public_key
    )
    view = await open_view([chain])
    done = await publish.commit(Sender([chain], waiting=QUICK), view, 450, "13.89.38.129:2", MINER)
    found = await read_fields(await view_at(chain, done.block.hash, view), 450, MINER.public_key)
    assert found is not None
    assert list(found.fields) == expected


async def test_a_text_that_is_no_endpoint_replaces_the_text_before_it_and_no_root() -> None:
    chain = LivingChain()
    info = {"fields": [ROOT_FIELD, raw_field(b"s3://bucket/old")]}
    chain.put({"deposit": 0, "block": 1, "info": info}, "Commitments", "CommitmentOf", 450, MINER.public_key)
    view = await open_view([chain])
    await publish.commit(Sender([chain], waiting=QUICK), view, 450, "s3://bucket/new", MINER)
    found = chain.get("Commitments", "CommitmentOf", 450, MINER.public_key)
    assert found["info"]["fields"] == [raw_field(b"s3://bucket/new"), ROOT_FIELD]


async def test_three_fields_of_others_leave_no_room_and_nothing_is_sent() -> None:
    chain = LivingChain()
    info = {"fields": [ROOT_FIELD, FOREIGN, raw_field(b"theirs")]}
    chain.put({"deposit": 0, "block": 1, "info": info}, "Commitments", "CommitmentOf", 450, MINER.public_key)
    with pytest.raises(CallNotComposable, match=r"no room for one more: b'engram-relay.*b'theirs'"):
        await publish.commit(Sender([chain], waiting=QUICK), await open_view([chain]), 450, "a:1", MINER)
    assert "author_submitExtrinsic" not in chain.asked


async def test_a_hotkey_commits_once_an_epoch_whatever_it_commits() -> None:
    chain = LivingChain()
    sender = Sender([chain], waiting=QUICK)
    done = await publish.commit(sender, await open_view([chain]), 450, "a:1", MINER)
    with pytest.raises(CommittedInEpoch, match=rf"has committed in block {done.block.number}, .* after block \d+"):
        await publish.commit(sender, await open_view([chain]), 450, "a:2", MINER)
    assert chain.asked.count("author_submitExtrinsic") == 1


async def test_a_cost_that_has_risen_beyond_the_limit_is_not_paid() -> None:
    chain = LivingChain()
    chain.put(2 * RAO_PER_TAO, SUBTENSOR, "Burn", 450)
    view = await open_view([chain])
    with pytest.raises(NotPaid, match=r"risen to 2\.000000000 TAO"):
        await register(Sender([chain], waiting=QUICK), view, 450, COLDKEY, b"\x07" * 32, RAO_PER_TAO)
    assert chain.burned == []


@pytest.mark.parametrize(
    ("changed", "limit_tao", "why"),
    [
        ({"is_open": False}, None, "takes no registrations"),
        ({}, 0.5, "more than the limit of 0.5"),
        ({}, float("nan"), "more than the limit of nan"),
        ({"balance_rao": RAO_PER_TAO - 1}, None, "has 0.999999999"),
    ],
)
def test_a_registration_is_refused_before_anything_is_signed(
    changed: dict[str, object], limit_tao: float | None, why: str
) -> None:
    terms = {"netuid": 450, "payer": b"\x01" * 32, "uid": None, "is_open": True}
    amounts = {"burn_rao": RAO_PER_TAO, "balance_rao": RAO_PER_TAO}
    require_payable(RegistrationTerms(**terms, **amounts), None)  # type: ignore[arg-type]
    with pytest.raises(NotPaid, match=why):
        require_payable(RegistrationTerms(**{**terms, **amounts, **changed}), limit_tao)  # type: ignore[arg-type]


async def test_the_terms_name_the_uid_of_a_hotkey_that_is_registered() -> None:
    view = await open_view([LivingChain()])
    assert (await read_terms(view, 450, MINER.public_key, COLDKEY.public_key, 0.0)).uid is not None
    assert (await read_terms(view, 450, b"\x07" * 32, COLDKEY.public_key, 0.0)).uid is None


async def test_the_status_of_a_hotkey_is_read_without_asking_its_endpoint() -> None:
    view = await open_view([LivingChain()])
    http = HttpClient()
    known = await hotkey_status(await read_facts(view, 450, MINER.public_key, 0.0), http, None)
    stranger = await hotkey_status(await read_facts(view, 450, b"\x07" * 32, 0.0), http, None)
    await http.aclose()
    assert (known.registered, known.reachable) == (True, None)
    assert (stranger.registered, stranger.uid, stranger.block) == (False, None, view.head.number)
