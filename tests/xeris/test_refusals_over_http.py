"""Every way to cheat a receiver, over a socket: each is refused with its reason, and nothing of it is kept."""

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import trio
from sqlalchemy import func, select

from config.model import HttpSettings
from engram.clock import ManualClock, SeededIds
from engram.hotkeys import Keypair, PublicKey
from engram.http.client import HttpClient
from engram.ledger import open_inline
from engram.relay.anchoring.rules import root_of
from engram.relay.model import Ranked
from engram.relay.rules import output_hash, stable_anchor, stable_ranking
from engram.telemetry.metrics import Metrics
from engram.xeris import records, submissions
from engram.xeris.app import MAX_BODY_BYTES, xeris_app
from engram.xeris.receiver import XerisReceiver
from engram.xeris.tables import anchors
from tests.http.harness import serving
from tests.miner.nodes import NODE
from tests.relay.test_roots import root
from tests.xeris.test_judging import NOW, ONE, STRANGER, TWO, anchor, cosignature, ranking, resigned, rooted, scores

OWN = Keypair.from_seed(bytes([9]) * 32)
GATEWAY = Keypair.from_seed(bytes([4]) * 32)
BLOCK = 1000
"""Of what the helpers sign; ONE and TWO hold permits there, STRANGER at the block before."""
SETTINGS = HttpSettings(requests_per_minute_per_ip=0)


class Receiving:
    """A receiver behind a socket, with a quorum of two; `roots` is what ONE has committed, by block."""

    def __init__(self) -> None:
        self.ledger = open_inline()
        self.roots: dict[int, bytes] = {}
        self.epochs: dict[int, int] = {}
        self.is_read = True
        self.reads: list[int] = []
        self.reading, self.go_on = trio.Event(), trio.Event()
        self.go_on.set()
        self.http = HttpClient()
        self.url = ""
        clock = ManualClock(NOW)
        receiver = XerisReceiver(
            self.ledger,
            OWN,
            clock,
            gateways=frozenset({GATEWAY.public_key}),
            netuids=(450,),
            quorum=2,
            keep_s=86_400.0,
            read_root=self._root,
            epoch_at=lambda netuid, block: self.epochs.get(block, 7) if self.is_read else None,
        )
        self.app = xeris_app(receiver, self.ledger, settings=SETTINGS, clock=clock, ids=SeededIds(1), metrics=Metrics())
        self._permit(BLOCK - 1, STRANGER)
        self._permit(BLOCK, ONE, TWO)

    async def _root(self, netuid: int, hotkey: PublicKey, block: int) -> bytes | None:
        self.reads.append(block)
        self.reading.set()
        await self.go_on.wait()
        return self.roots.get(block)

    def _permit(self, block: int, *keys: Keypair) -> None:
        held = [key.public_key for key in keys]
        self.ledger.write_now(lambda c: records.note_permits(c, 450, block, held, 360))

    async def send(self, document: dict[str, Any]) -> tuple[int, str]:
        """Return the status, and the code of the refusal (empty when it was taken)."""
        answer = await self.http.request(
            "POST",
            f"{self.url}/payloads",
            content=json.dumps(document).encode(),
            headers={"content-type": "application/json"},
            connect_s=5.0,
            read_s=5.0,
            total_s=5.0,
            max_bytes=100_000,
        )
        return answer.status, answer.json().get("code", "")

    @property
    def kept(self) -> int:
        return self.ledger.read_now(records.count)

    @property
    def verdicts(self) -> list[str]:
        return [line.verdict for line in self.ledger.read_now(lambda c: submissions.newest(c, 100))]


@pytest.fixture
async def at() -> AsyncIterator[Receiving]:
    receiving = Receiving()
    async with serving(receiving.app, SETTINGS) as running:
        receiving.url = running.address.url
        yield receiving
    await receiving.http.aclose()
    receiving.ledger.close()


def memory() -> dict[str, Any]:
    return resigned(rooted(root()) | {"validator_hotkey": GATEWAY.ss58}, GATEWAY)


KINDS = {
    "scores": scores(cosigners=(TWO,)),
    "ranking": ranking(TWO),
    "memory": memory(),
    "anchor": anchor(),
}


def tampered(value: Any) -> Any:
    match value:
        case str():
            return value[:-1] + ("0" if value[-1] != "0" else "1")
        case bool() | None:
            return 7
        case int() | float():
            return value + 1
        case list():
            return value[:-1]
        case _:
            return {}


async def test_what_is_tampered_with_would_be_taken_as_it_was_signed(at: Receiving) -> None:
    for kind in ("scores", "ranking", "memory"):
        assert await at.send(KINDS[kind]) == (200, "")
    assert at.kept == 3


OF_FIELD = {
    "round_ts": "signature",
    "validator_hotkey": "signature",
    "signature": "signature",
    "signed_hash": "signature",
    "block": "nonce",
    "netuid": "signature",
    "nonce": "signature",
    "output_hash": "output_hash",
    "cosignatures": "quorum",
    "scores": "output_hash",
    "ranking": "output_hash",
    "nodes": "output_hash",
    "anchored": "schema",
    "epoch": "output_hash",
    "root": "output_hash",
    "leaves": "output_hash",
    "count": "output_hash",
    "first": "output_hash",
    "schema_version": "schema",
    "kind": "schema",
}
"""The code that each field is refused with when it alone is changed."""


@pytest.mark.parametrize("kind", KINDS)
async def test_no_field_of_any_kind_can_be_changed(at: Receiving, kind: str) -> None:
    document = KINDS[kind]
    for field, value in document.items():
        status, code = await at.send(document | {field: tampered(value)})
        assert (field, code) == (field, OF_FIELD[field]), status
        assert status == 422
    assert at.kept == 0
    assert len(at.verdicts) == len(document)


async def test_a_replay_gets_the_first_answer_and_is_kept_once(at: Receiving) -> None:
    answers = [await at.send(KINDS["scores"]) for _ in range(3)]
    assert answers == [(200, "")] * 3
    assert (at.kept, at.verdicts) == (1, ["repeated", "repeated", "accepted"])


async def test_another_payload_under_the_same_nonce_is_refused(at: Receiving) -> None:
    await at.send(KINDS["scores"])
    other = resigned(scores(round_ts=NOW - 1))
    other["cosignatures"] = [cosignature(TWO, other["signed_hash"])]
    assert await at.send(other) == (409, "nonce_used")


async def test_a_second_output_of_one_block_is_refused(at: Receiving) -> None:
    await at.send(KINDS["ranking"])
    other = [each | {"weight": weight} for each, weight in zip(ranking()["ranking"], (0.7, 0.3), strict=True)]
    again = ranking(TWO, nonce="1000:5:2", ranking=other, output_hash=hash_of(other))
    assert await at.send(again) == (409, "equivocation")


def hash_of(miners: list[dict[str, Any]]) -> str:
    return output_hash(stable_ranking(msgspec.convert(miners, list[Ranked])))


async def test_memory_of_a_foreign_key_is_refused(at: Receiving) -> None:
    assert await at.send(resigned(memory() | {"validator_hotkey": STRANGER.ss58}, STRANGER)) == (403, "unknown_gateway")


async def test_scores_of_a_foreign_key_are_refused_also_with_a_validator_s_signature(at: Receiving) -> None:
    assert await at.send(scores(STRANGER, cosigners=(ONE,))) == (422, "no_permit")
    assert await at.send(scores(ONE, cosigners=(STRANGER,))) == (422, "no_permit")


async def test_a_gateway_s_key_signs_no_scores(at: Receiving) -> None:
    assert await at.send(scores(GATEWAY, cosigners=(ONE,))) == (422, "no_permit")


@pytest.mark.parametrize("document", [scores(), ranking()])
async def test_one_signature_where_two_are_needed_is_refused(at: Receiving, document: dict[str, Any]) -> None:
    assert await at.send(document) == (422, "quorum")


@pytest.mark.parametrize("spelling", [ONE.ss58, "0x" + ONE.public_key.hex()])
async def test_two_spellings_of_one_key_are_one_signature(at: Receiving, spelling: str) -> None:
    document = scores()
    document["cosignatures"] = [cosignature(ONE, document["signed_hash"], spelling)]
    assert await at.send(document) == (422, "cosignature")


async def test_a_signer_without_a_permit_at_the_payload_s_block_is_refused(at: Receiving) -> None:
    """STRANGER held one at the block before, as ONE and TWO do not."""
    document = resigned(scores(block=BLOCK - 1, nonce=f"{BLOCK - 1}:5:1"))
    document["cosignatures"] = [cosignature(TWO, document["signed_hash"])]
    assert await at.send(document) == (422, "no_permit")
    assert await at.send(scores(cosigners=(TWO, STRANGER))) == (422, "no_permit")


async def test_a_block_that_is_not_known_is_waited_for_and_nothing_is_guessed(at: Receiving) -> None:
    document = resigned(scores(block=BLOCK + 5, nonce=f"{BLOCK + 5}:5:1"))
    document["cosignatures"] = [cosignature(TWO, document["signed_hash"])]
    assert await at.send(document) == (425, "permits_unknown")


@pytest.mark.parametrize("node", [NODE.ss58, TWO.ss58])
async def test_a_root_that_its_node_did_not_sign_is_refused(at: Receiving, node: str) -> None:
    forged = rooted(root(ONE) if node == NODE.ss58 else root(), node=node)
    assert await at.send(resigned(forged | {"validator_hotkey": GATEWAY.ss58}, GATEWAY)) == (422, "root")


async def test_an_anchor_whose_root_is_not_that_of_its_leaves_is_refused(at: Receiving) -> None:
    assert await at.send(anchor(root="00" * 32)) == (422, "anchor_root")


async def test_an_anchor_of_a_root_that_was_never_committed_is_refused(at: Receiving) -> None:
    await at.send(KINDS["scores"])
    document = anchored(KINDS["scores"]["output_hash"])
    assert await at.send(document) == (422, "commitment_other")
    at.roots[BLOCK] = bytes(32)
    assert await at.send(document) == (422, "commitment_other")


async def test_an_anchor_of_a_root_that_stood_at_another_block_is_refused(at: Receiving) -> None:
    """Stale: its root was replaced, at the block that it names."""
    await at.send(KINDS["scores"])
    document = anchored(KINDS["scores"]["output_hash"])
    at.roots = {BLOCK - 1: bytes.fromhex(document["root"]), BLOCK: bytes([7]) * 32}
    assert await at.send(document) == (422, "commitment_other")


async def test_an_anchor_of_leaves_that_were_not_accepted_from_its_signer_is_refused(at: Receiving) -> None:
    at.roots[BLOCK] = bytes.fromhex(anchor()["root"])
    assert await at.send(anchor()) == (422, "anchor_leaves")


async def test_an_anchor_of_what_was_accepted_is_taken_and_served_with_its_path(at: Receiving) -> None:
    await at.send(KINDS["scores"])
    leaf = KINDS["scores"]["output_hash"]
    document = anchored(leaf)
    at.roots[BLOCK] = bytes.fromhex(document["root"])
    assert await at.send(document) == (200, "")
    answer = await at.http.request(
        "GET",
        f"{at.url}/intelligence/{KINDS['scores']['signed_hash']}",
        connect_s=5.0,
        read_s=5.0,
        total_s=5.0,
        max_bytes=100_000,
    )
    shown = answer.json()
    assert (shown["state"], shown["reason"], shown["anchor"]["root"]) == ("anchored", "", document["root"])


def anchored(leaf: str) -> dict[str, Any]:
    fields: dict[str, Any] = {"leaves": [leaf], "root": root_of([leaf]).hex()}
    document = anchor() | fields
    names = ("anchored", "epoch", "root", "leaves", "first", "count")
    return resigned(document | {"output_hash": output_hash(stable_anchor(**{name: document[name] for name in names}))})


def again(document: dict[str, Any], milliseconds: int, **changed: Any) -> dict[str, Any]:
    """The anchor under another nonce."""
    return resigned(document | {"nonce": f"{BLOCK}:anchor.scores:{milliseconds}"} | changed)


async def test_an_anchor_under_other_milliseconds_is_acknowledged_and_not_kept_again(at: Receiving) -> None:
    await at.send(KINDS["scores"])
    document = anchored(KINDS["scores"]["output_hash"])
    at.roots[BLOCK] = bytes.fromhex(document["root"])
    assert await at.send(document) == (200, "")
    at.roots.clear()
    for milliseconds in range(2, 5):
        assert await at.send(again(document, milliseconds)) == (200, "")
    assert (at.kept, at.verdicts) == (2, ["repeated"] * 3 + ["accepted"] * 2)
    assert at.ledger.read_now(lambda c: c.scalar(select(func.count()).select_from(anchors))) == 1


async def test_the_epoch_of_an_anchor_is_that_of_its_block_whatever_it_says(at: Receiving) -> None:
    await at.send(KINDS["scores"])
    document = anchored(KINDS["scores"]["output_hash"])
    at.roots[BLOCK] = bytes.fromhex(document["root"])
    at.is_read = False
    assert await at.send(document) == (425, "commitment_unknown")
    at.is_read, at.epochs = True, {BLOCK: 4}
    assert await at.send(document) == (200, "")
    assert document["epoch"] == 7
    assert at.ledger.read_now(lambda c: c.scalar(select(anchors.c.epoch))) == 4


async def test_repeats_that_come_at_once_are_kept_once_and_all_are_taken(at: Receiving) -> None:
    answers = list[tuple[int, str]]()

    async def send() -> None:
        answers.append(await at.send(KINDS["scores"]))

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(send)
    assert answers == [(200, "")] * 6
    assert (at.kept, sorted(at.verdicts)) == (1, ["accepted"] + ["repeated"] * 5)


async def test_a_repeat_that_comes_while_the_chain_is_read_for_the_first_is_told_to_come_later(at: Receiving) -> None:
    await at.send(KINDS["scores"])
    document = anchored(KINDS["scores"]["output_hash"])
    at.roots[BLOCK] = bytes.fromhex(document["root"])
    at.go_on = trio.Event()
    first = list[tuple[int, str]]()

    async def send() -> None:
        first.append(await at.send(document))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await at.reading.wait()
        assert await at.send(document) == (425, "at_work")
        assert await at.send(KINDS["scores"]) == (200, ""), "nothing else waits"
        at.go_on.set()
    assert first == [(200, "")]
    assert await at.send(document) == (200, "")
    assert (at.reads, at.kept) == ([BLOCK], 2)


async def test_a_body_beyond_a_million_bytes_is_refused_before_it_is_read(at: Receiving) -> None:
    largest = MAX_BODY_BYTES - len(json.dumps(scores() | {"more": ""}).encode())
    assert await at.send(scores() | {"more": "x" * largest}) == (422, "signature"), "of this size it is read"
    assert await at.send(scores() | {"more": "x" * (largest + 1)}) == (413, "body_too_large")
    assert (at.kept, at.verdicts) == (0, ["signature"])
