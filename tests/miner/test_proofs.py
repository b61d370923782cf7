"""Proofs of the second form, and the roots that are for their owners."""

import struct
import time
from pathlib import Path
from typing import Any

import pytest

from engram import wire
from engram.hotkeys import verify
from engram.memory.proof import keyed_tree, proofs
from tests.memory.stores import DIMENSION
from tests.miner import endpoints
from tests.miner.endpoints import chat_parameters, opened
from tests.miner.nodes import CONTROLLER, NODE, STRANGER, encoded, in_namespace, serving, signed

UP = [1.0] + [0.0] * (DIMENSION - 1)


async def test_the_second_form_of_a_proof_needs_the_bytes_and_binds_everything(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        cid = str((await endpoints.ingest(service, encoded({"raw_embedding": UP}))).body["cid"])
        expires = int(time.time()) + 60
        asked = {"cid": cid, "nonce_hex": "11" * 32, "expires_at": expires, "version": 2}
        given: Any = opened(await endpoints.challenge(service, encoded({**asked, "validator_hotkey_hex": "aa" * 32})))
        root = bytes.fromhex(given["root_hex"])
        bound = proofs.Challenge(
            NODE.public_key, b"\xaa" * 32, b"\x11" * 32, cid, "__public__", root, given["count"], expires
        )
        embedding = struct.pack(f"<{DIMENSION}f", *UP)
        assert proofs.verify_possession(given["proof"], embedding, bound)
        signed_text = proofs.transcript(bound) + bytes.fromhex(given["proof"])
        assert verify(NODE.public_key, signed_text, bytes.fromhex(given["signature"][2:]))
        assert keyed_tree.verify(
            wire.convert(given["inclusion"], keyed_tree.Shown), cid, root
        ) == proofs.embedding_hash(embedding)
        assert "embedding_hash" not in given


@pytest.mark.parametrize(
    "changed", [{"version": 3}, {"version": True}, {"in_s": 10_000}, {"expires_at": 1e300}], ids=str
)
async def test_a_challenge_of_no_version_or_of_another_time_is_a_400(tmp_path: Path, changed: dict[str, Any]) -> None:
    async with serving(tmp_path) as service:
        cid = str((await endpoints.ingest(service, encoded({"raw_embedding": UP}))).body["cid"])
        now = int(time.time())
        asked = {"cid": cid, "nonce_hex": "11" * 32, "expires_at": now + 60, "version": 2}
        assert (await endpoints.challenge(service, encoded(asked))).status == 200
        wrong = {"expires_at": now + changed["in_s"]} if "in_s" in changed else changed
        assert (await endpoints.challenge(service, encoded({**asked, **wrong}))).status == 400


async def test_commitments_of_a_namespace_and_of_everything_are_for_their_owners(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        await endpoints.ingest(service, signed(CONTROLLER, "IngestSynapse", {"text": "mine", "namespace": "notes"}))
        mine = {key: str(value) for key, value in in_namespace(CONTROLLER, "notes").items()}
        own = opened(await endpoints.commitment(service, mine))
        assert (own["count"], str(own["signed"]).startswith("engram-commitment:keyed-1:notes:")) == (1, True)
        others = {key: str(value) for key, value in in_namespace(STRANGER, "notes").items()}
        assert (await endpoints.commitment(service, others)).status == 403
        assert (await endpoints.commitment(service, {"scope": "all"})).status == 401
        everything = chat_parameters(CONTROLLER, "commitment", scope="all")
        assert opened(await endpoints.commitment(service, everything))["count"] == 1


async def test_a_commitment_of_no_scope_or_form_is_a_400(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        await endpoints.ingest(service, signed(CONTROLLER, "IngestSynapse", {"text": "mine", "namespace": "notes"}))
        mine = {key: str(value) for key, value in in_namespace(CONTROLLER, "notes").items()}
        for parameters in ({**mine, "form": "legacy"}, {"scope": "some"}, {"form": "new"}):
            assert (await endpoints.commitment(service, parameters)).status == 400
