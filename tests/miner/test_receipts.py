"""Receipts of what was stored and deleted: what they say, and that a client believes none that does not hold."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engram import wire
from engram.api.node_model import SignedReceipt
from engram.clock import ManualClock
from engram.hotkeys import Keypair
from engram.memory.model import PUBLIC
from engram.miner.service import Service
from engram.miner.signer import Signer
from engram.sdk import receipts
from engram.sdk.errors import Impostor, NodeRefused
from tests.memory.search.searchers import READ, ShortSighted
from tests.miner import endpoints as answers
from tests.miner.nodes import CONTROLLER, NODE, STRANGER, encoded, serving, signed

CLOCK = ManualClock()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(tmp_path, clock=CLOCK, tenants="anyone") as made:
        yield made


async def stored(service: Service, signer: Keypair | None = CONTROLLER, **fields: Any) -> dict[str, Any]:
    fields = {"text": "otters", "receipt": True, **fields}
    body = encoded(fields) if signer is None else signed(signer, "IngestSynapse", fields, _stamp())
    return dict((await answers.ingest(service, body)).body)


async def deleted(service: Service, cid: str, **fields: Any) -> dict[str, Any]:
    body = signed(CONTROLLER, "DeleteSynapse", {"cid": cid, "receipt": True, **fields}, _stamp())
    return dict((await answers.delete(service, cid, body)).body)


def _stamp() -> int:
    CLOCK.advance(0.001)
    return int(CLOCK.now() * 1000)


def of(answer: dict[str, Any]) -> SignedReceipt:
    return wire.convert(answer["receipt"], SignedReceipt)


def check(answer: dict[str, Any], deed: Any = "stored", name: str = PUBLIC, **more: Any) -> receipts.CheckedReceipt:
    told = {"node": NODE.public_key, "at": CLOCK.now(), "cid": answer["cid"], "owner": CONTROLLER.ss58, **more}
    return receipts.checked(of(answer), deed, name, **told)


@pytest.mark.parametrize("where", [{}, {"namespace": "notes"}])
async def test_who_stores_and_deletes_gets_a_receipt_that_holds(service: Service, where: dict[str, Any]) -> None:
    await stored(service, text="another", **where)
    answer = await stored(service, key="otters", **where)
    name = where.get("namespace", PUBLIC)
    receipt = check(answer, name=name, key="otters")
    assert (receipt.searchable, receipt.count) == (True, 2)
    [[space]] = await service.truth.read(lambda held: held.execute("SELECT DISTINCT namespace FROM records").fetchall())
    assert receipt.root_hex == (await service.commitment.of(space)).root.hex()
    gone = check(await deleted(service, answer["cid"], **where), "deleted", name, owner="")
    assert (gone.searchable, gone.count) == (False, 1)
    assert gone.root_hex != receipt.root_hex


async def test_without_asking_for_one_the_answer_is_what_it_was(service: Service) -> None:
    assert "receipt" not in await stored(service, receipt=False)
    answer = await stored(service, receipt=None)
    assert "receipt" not in answer
    assert "receipt" not in await deleted(service, answer["cid"], receipt=False)
    refused = await answers.ingest(service, encoded({"text": "x", "receipt": "yes"}))
    assert (refused.status, refused.body["error"]) == (400, "receipt must be true or false.")
    assert "receipt" not in await stored(service, text=" "), "nothing is stored, so there is no receipt of it"


async def test_a_receipt_says_what_the_record_is_not_what_was_asked_for(service: Service) -> None:
    await stored(service, STRANGER)
    answer = await stored(service, key="mine")
    assert answer["owner_reason"] == "stored_first_by_other"
    check(answer, owner=STRANGER.ss58)
    with pytest.raises(Impostor):
        check(answer, owner=STRANGER.ss58, key="mine")


async def test_a_receipt_has_the_key_that_the_record_had_before(service: Service) -> None:
    first = await stored(service, key="fact", namespace="me")
    again = await stored(service, namespace="me")
    newer = await stored(service, text="otters, once more", supersedes=first["cid"], namespace="me")
    for answer in (first, again, newer):
        check(answer, name="me", key="fact")
        check(answer, name="me")


async def test_no_receipt_says_searchable_of_what_no_search_finds(service: Service) -> None:
    await stored(service, text="home is Paris", key="home", namespace="me")
    await stored(service, text="home is Rome", key="home", namespace="me")
    superseded = await stored(service, text="home is Paris", namespace="me")
    assert not check(superseded, name="me").searchable
    expired = await stored(service, text="rain", expires_at=CLOCK.now() - 5, namespace="me")
    assert not check(expired, name="me").searchable
    again = await stored(service, text="rain", namespace="me")
    assert check(again, name="me").searchable


async def test_no_receipt_says_searchable_of_a_text_that_is_not_found_whole(tmp_path: Path) -> None:
    slow = ShortSighted()
    async with serving(tmp_path, clock=CLOCK, tenants="anyone", embedder=slow) as service:
        slow.fails = True
        behind = await stored(service, text="head".ljust(READ) + "x" * 200, namespace="me")
        assert not check(behind, name="me").searchable
        not_kept = await stored(service, text="head".ljust(READ) + "y", namespace="me")
        assert not_kept["text_kept"] is False
        assert not check(not_kept, name="me").searchable


async def test_a_batch_that_asks_for_receipts_is_refused(service: Service) -> None:
    cid = (await stored(service, receipt=False))["cid"]
    body = signed(CONTROLLER, "IngestBatch", {"items": [{"text": "a"}], "receipt": True}, _stamp())
    refused = await answers.ingest_batch(service, body)
    assert (refused.status, refused.body["error"].split(":")[0]) == (400, "A batch gives no receipts")
    body = signed(CONTROLLER, "DeleteBatch", {"cids": [cid], "receipt": True}, _stamp())
    assert (await answers.delete_batch(service, body)).status == 400
    items = [{"text": "a", "receipt": True}, {"text": "b", "receipt": False}]
    answer = await answers.ingest_batch(service, signed(CONTROLLER, "IngestBatch", {"items": items}, _stamp()))
    of_a, of_b = answer.body["results"]
    assert of_a["error"].startswith("A batch gives no receipts")
    assert of_b["cid"]
    assert service.store.count().public == 2


async def test_a_receipt_says_whose_it_is(service: Service) -> None:
    await stored(service, None)
    answer = await stored(service)
    assert answer["owner_reason"] == "stored_first_unsigned"
    check(answer, owner="")
    with pytest.raises(Impostor, match="does not hold"):
        check(answer)


@pytest.mark.parametrize(
    "change",
    [
        {"cid": "v1::" + "0" * 64},
        {"node": STRANGER.public_key},
        {"owner": STRANGER.ss58},
        {"key": "another"},
        {"name": "notes"},
        {"deed": "deleted", "owner": ""},
        {"at": CLOCK.now() + 5_000},
    ],
)
async def test_a_receipt_of_something_else_is_not_taken(service: Service, change: dict[str, Any]) -> None:
    answer = await stored(service)
    check(answer)
    with pytest.raises(Impostor, match="receipt"):
        check(answer, **change)


async def test_a_proof_that_says_the_opposite_is_not_taken(service: Service) -> None:
    answer = await stored(service)
    receipt = of(answer)
    forged = msgspec.structs.replace(receipt, proof=of(await deleted(service, answer["cid"])).proof)
    with pytest.raises(Impostor):
        receipts.checked(
            forged, "stored", PUBLIC, answer["cid"], node=NODE.public_key, at=CLOCK.now(), owner=CONTROLLER.ss58
        )


async def test_what_cannot_be_signed_now_is_stored_all_the_same(tmp_path: Path) -> None:
    async with serving(tmp_path, clock=CLOCK, signer=Signer.with_session_key(NODE.public_key)) as service:
        answer = await stored(service)
        assert answer["cid"]
        assert answer["receipt"] is None
        with pytest.raises(NodeRefused, match="is stored, and the node gave no receipt") as raised:
            receipts.checked(None, "stored", PUBLIC, answer["cid"], node=NODE.public_key, at=CLOCK.now())
        assert (raised.value.code, raised.value.cid) == ("no_receipt", answer["cid"])
