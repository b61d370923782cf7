"""An ingest's answer says whose the record is, and why it is not the sender's."""

import json
from pathlib import Path
from typing import Any

import pytest

from engram.hotkeys import Keypair
from engram.memory.errors import IndexUnavailable
from engram.memory.indexed_store import IndexedStore
from engram.miner.service import Service
from tests.miner import endpoints
from tests.miner.nodes import CONTROLLER, STAMPS, STRANGER, encoded, in_namespace, serving, signed

TEXT = {"text": "whose is this"}


async def stored(service: Service, body: bytes) -> dict[str, Any]:
    """The answer of a single ingest, which that of a batch is held to."""
    answer = await endpoints.ingest(service, body)
    assert answer.status == 200
    return answer.body


def batch(keypair: Keypair, at_ms: int | None = None) -> bytes:
    return signed(keypair, "IngestBatch", {"items": [TEXT]}, at_ms)


async def test_who_signs_first_owns_and_is_told_so(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        for _ in range(2):
            mine = await stored(service, signed(STRANGER, "IngestSynapse", TEXT))
            assert (mine["owner"], "owner_reason" in mine) == (STRANGER.ss58, False)
        others = await stored(service, signed(CONTROLLER, "IngestSynapse", TEXT))
        assert (others["owner"], others["owner_reason"]) == (STRANGER.ss58, "stored_first_by_other")
        anonymous = await stored(service, encoded(TEXT))
        assert (anonymous["owner"], anonymous["owner_reason"]) == (STRANGER.ss58, "unsigned")
        results: Any = (await endpoints.ingest_batch(service, batch(CONTROLLER))).body["results"]
        [result] = results
        assert (result["owner"], result["owner_reason"]) == (STRANGER.ss58, "stored_first_by_other")


async def test_what_was_stored_unsigned_stays_nobodys(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        first = await stored(service, encoded(TEXT))
        assert (first["owner"], first["owner_reason"]) == (None, "unsigned")
        later = await stored(service, signed(STRANGER, "IngestSynapse", TEXT))
        assert (later["owner"], later["owner_reason"]) == (None, "stored_first_unsigned")


@pytest.mark.parametrize("reason", ["stale", "future", "before_start", "replayed", "wrong", "incomplete", "malformed"])
async def test_a_signature_that_does_not_count_is_named(tmp_path: Path, reason: str) -> None:
    async with serving(tmp_path) as service:
        now_ms = STAMPS.next()
        at_ms = {"stale": -40_000, "future": 40_000, "before_start": -5_000}.get(reason, 0)
        body = signed(STRANGER, "IngestSynapse", TEXT, now_ms + at_ms)
        fields: dict[str, Any] = json.loads(body)
        if reason == "replayed":
            await endpoints.ingest(service, body)
        elif reason == "wrong":
            fields["text"] = "another"
        elif reason == "incomplete":
            del fields["nonce"]
        elif reason == "malformed":
            fields["nonce"] = "soon"
        told = await stored(service, body if reason == "replayed" else encoded(fields))
        assert told["owner_reason"] == f"signature_{reason}"
        assert told["owner"] == (STRANGER.ss58 if reason == "replayed" else None)


async def test_a_private_record_is_of_whoever_signs_for_its_namespace(tmp_path: Path) -> None:
    async with serving(tmp_path, tenants="anyone") as service:
        told = await stored(service, encoded({**TEXT, **in_namespace(STRANGER, "notes")}))
        assert (told["owner"], "owner_reason" in told) == (STRANGER.ss58, False)


async def test_the_owner_is_told_while_the_index_is_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def late(self: IndexedStore, sequence: int) -> None:
        raise IndexUnavailable("later")

    async with serving(tmp_path) as service:
        monkeypatch.setattr(IndexedStore, "_reached", late)
        told = await stored(service, signed(STRANGER, "IngestSynapse", TEXT))
        assert (told["searchable"], told["owner"]) == (False, STRANGER.ss58)
