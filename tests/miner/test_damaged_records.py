"""A record that the disk has changed while the node runs is neither served nor proved nor committed to."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from engram.durable.driver import sqlite3
from engram.memory.errors import RecordDamaged
from engram.memory.model import PUBLIC
from engram.memory.proof import soundness
from engram.miner.handlers.proofs import signed_whole
from engram.miner.service import Service
from tests.memory.stores import DIMENSION
from tests.miner import endpoints
from tests.miner.endpoints import Answer
from tests.miner.nodes import CONTROLLER, encoded, serving, signed

UP = [1.0] + [0.0] * (DIMENSION - 1)
ACROSS = [0.0, 1.0] + [0.0] * (DIMENSION - 2)
MINE = {"namespace": "notes"}


@pytest.fixture(autouse=True)
def _checked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundness, "_LEAST_BETWEEN_S", 0.0)
    monkeypatch.setattr(soundness, "_SHARE", 0)


async def stored(service: Service, vector: list[float], **fields: Any) -> str:
    body = signed(CONTROLLER, "IngestSynapse", {"raw_embedding": vector, "metadata": {"a": "b"}, **fields})
    return str((await endpoints.ingest(service, body)).body["cid"])


def flip(folder: Path, cid: str) -> None:
    """Changes one bit of a record's vector behind the node's back."""
    with sqlite3.connect(folder / "truth.db") as connection:
        (vector,) = connection.execute("SELECT embedding FROM records WHERE cid = ?", (cid,)).fetchone()
        changed = bytes([vector[0] ^ 1]) + vector[1:]
        connection.execute("UPDATE records SET embedding = ? WHERE cid = ?", (changed, cid))
    connection.close()


def challenged(cid: str, version: int, name: dict[str, str]) -> bytes:
    asked = {"cid": cid, "nonce_hex": "11" * 32, "expires_at": int(time.time()) + 60, "version": version, **name}
    return signed(CONTROLLER, "ChallengeSynapse", asked)


Ask = Callable[[Service, str, dict[str, str]], Any]


def parameters(endpoint: str, fields: dict[str, str], **path: str) -> dict[str, str]:
    body = json.loads(signed(CONTROLLER, endpoint, {**fields, **path}))
    return {name: str(value) for name, value in body.items() if name not in path}


ASKS: dict[str, Ask] = {
    "challenge": lambda service, cid, name: endpoints.challenge(service, challenged(cid, 1, name)),
    "challenge 2": lambda service, cid, name: endpoints.challenge(service, challenged(cid, 2, name)),
    "prove": lambda service, cid, name: endpoints.prove_memory(
        service, signed(CONTROLLER, "prove-memory", {"cid": cid, **name})
    ),
    "root": lambda service, cid, name: endpoints.commitment(service, parameters("commitment", name)),
    "retrieve": lambda service, cid, name: endpoints.retrieve(service, cid, parameters("retrieve", name, cid=cid)),
}
PUBLIC_ASKS: dict[str, Ask] = {
    "repair": lambda service, cid, name: endpoints.repair(service, encoded({"cid": cid})),
    "legacy root": lambda service, cid, name: endpoints.commitment(service, {"form": "legacy"}),
    "whole": lambda service, cid, name: endpoints.commitment(service, parameters("commitment", {"scope": "all"})),
}


@pytest.mark.parametrize(
    ("what", "name"), [*((what, name) for what in ASKS for name in ({}, MINE)), *((what, {}) for what in PUBLIC_ASKS)]
)
async def test_what_is_proved_is_hashed_first(tmp_path: Path, what: str, name: dict[str, str]) -> None:
    ask = {**ASKS, **PUBLIC_ASKS}[what]
    async with serving(tmp_path) as service:
        cid, sound = await stored(service, UP, **name), await stored(service, ACROSS, **name)
        before: Answer = await ask(service, cid, name)
        assert before.status == 200
        flip(tmp_path, cid)
        with capture_logs() as logs:
            told: Answer = await ask(service, cid, name)
        assert (told.status, told.body["code"]) == (503, "record_damaged")
        assert cid in str(told.body["error"])
        assert "engram miner verify" in str(told.body["error"])
        assert [(entry["event"], entry["cid"]) for entry in logs if entry["log_level"] == "error"] == [
            ("record_damaged", cid)
        ]
        assert b"engram_miner_damaged_records_total 1.0" in service.metrics.render()
        other: Answer = await endpoints.challenge(service, challenged(sound, 1, name))
        assert other.status == 200


async def test_one_that_is_deleted_is_gone_from_the_commitment_and_can_be_stored_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        cid = await stored(service, UP)
        await stored(service, ACROSS)
        trusted = [(await endpoints.commitment(service, {"form": form})).body for form in ("keyed-1", "legacy")]
        flip(tmp_path, cid)
        gone = await endpoints.delete(service, cid, signed(CONTROLLER, "DeleteSynapse", {"cid": cid}))
        assert gone.status == 200
        without = (await endpoints.commitment(service)).body
        assert without["count"] == 1
        assert await stored(service, UP) == cid
        again = [(await endpoints.commitment(service, {"form": form})).body for form in ("keyed-1", "legacy")]
        assert [each["root_hex"] for each in again] == [each["root_hex"] for each in trusted]


async def test_an_export_gives_everything_and_says_at_its_end_why_there_is_no_root(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        cid = await stored(service, UP)
        flip(tmp_path, cid)
        page = await endpoints.export(service, signed(CONTROLLER, "export", {}))
        assert page.body["count"] == 1
        stream: Any = await endpoints.export_stream(service, signed(CONTROLLER, "export-stream", {}))
        end = await stream._end(1)
        assert (end.commitment, cid in end.error) == (None, True)


async def test_a_namespace_is_not_hashed_for_more_than_a_part_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soundness, "_LEAST_BETWEEN_S", 3_600.0)
    monkeypatch.setattr(soundness, "_NAMESPACES", 1)
    async with serving(tmp_path) as service:
        cid = await stored(service, UP)
        await service.soundness.require_all(PUBLIC)
        flip(tmp_path, cid)
        await service.soundness.require_all(PUBLIC)
        with pytest.raises(RecordDamaged):
            await signed_whole(service, takes_certificate=True)  # another name, which takes the only place
        with pytest.raises(RecordDamaged):
            await service.soundness.require_all(PUBLIC)
        await service.store.delete(PUBLIC, cid)
        await service.soundness.require_all(PUBLIC)
