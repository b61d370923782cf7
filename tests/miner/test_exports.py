"""Taking a node's memory along: a copy of one record, and everything in pages."""

import base64
from pathlib import Path
from typing import Any

import pytest

from engram.memory.upkeep import export_pages
from tests.memory.stores import DIMENSION
from tests.miner import endpoints
from tests.miner.endpoints import attested, deposit, opened
from tests.miner.nodes import CONTROLLER, STRANGER, encoded, serving, signed

UP = [1.0] + [0.0] * (DIMENSION - 1)


async def test_a_copy_of_a_public_record_can_be_had_with_its_vector(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        cid = (await endpoints.ingest(service, encoded({"raw_embedding": UP, "metadata": {"a": "b"}}))).body["cid"]
        copied = opened(await endpoints.repair(service, encoded({"cid": cid})))
        assert copied == {"cid": cid, "embedding": UP, "metadata": {"a": "b"}}
        private = signed(CONTROLLER, "IngestSynapse", {"text": "mine", "namespace": "notes"})
        secret = (await endpoints.ingest(service, private)).body["cid"]
        assert (await endpoints.repair(service, encoded({"cid": secret}))).status == 404
        assert (await endpoints.repair(service, b"{}")).status == 400


async def test_the_controller_takes_everything_along(tmp_path: Path) -> None:
    async with serving(tmp_path, tenants="anyone") as service:
        await endpoints.ingest(service, encoded({"text": "public"}))
        await endpoints.ingest(service, signed(CONTROLLER, "IngestSynapse", {"text": "mine", "namespace": "notes"}))
        await endpoints.ingest(service, signed(STRANGER, "IngestSynapse", {"text": "theirs", "namespace": "notes"}))
        texts: list[str] = []
        after: Any = 0
        while after is not None:
            page = opened(await endpoints.export(service, signed(CONTROLLER, "export", {"after": after, "limit": 1})))
            records: Any = page["records"]
            texts += [record["text"] for record in records]
            assert all(len(base64.b64decode(record["embedding_b64"])) == 4 * DIMENSION for record in records)
            after = page["next"]
        assert texts == ["public", "mine"]


async def test_an_export_is_for_the_controller_alone(tmp_path: Path) -> None:
    async with serving(tmp_path, tenants="anyone") as service:
        await endpoints.ingest(service, signed(STRANGER, "IngestSynapse", {"text": "theirs", "namespace": "notes"}))
        for body, status in ((b"{}", 401), (signed(STRANGER, "export", {}), 403)):
            answer = await endpoints.export(service, body)
            assert (answer.status, "records" in answer.body) == (status, False)


@pytest.mark.parametrize(
    "fields", [{"after": -1}, {"after": "x"}, {"limit": True}, {"limit": -1}, {"kind": "everything"}]
)
async def test_a_page_of_an_export_that_cannot_be_is_a_400(tmp_path: Path, fields: dict[str, Any]) -> None:
    async with serving(tmp_path) as service:
        assert (await endpoints.export(service, signed(CONTROLLER, "export", fields))).status == 400


async def test_an_export_takes_pages_of_every_kind_and_of_the_controller_alone(tmp_path: Path) -> None:
    async with serving(tmp_path, tenants="anyone") as service:
        for keypair in (CONTROLLER, STRANGER):
            assert (await deposit(service, keypair, "vault")).status == 200
            assert (await endpoints.attest(service, attested(keypair, f"of_{keypair.ss58[-5:]}"))).status == 200
            for number in range(3):
                fields = {
                    "user_id": "u",
                    "conv_id": f"c{number}",
                    "messages": [{"role": "user", "content": "x" * 30_000}],
                }
                assert (await endpoints.save_chat(service, signed(keypair, "SaveChat", fields))).status == 200
        kinds = {"conversation": 3, "key_share": 1, "attestation": 1, "record": 0}
        for kind, amount in kinds.items():
            found: list[Any] = []
            after: Any = 0
            while after is not None:
                asked = {"kind": kind, "after": after, "limit": 2}
                page = opened(await endpoints.export(service, signed(CONTROLLER, "export", asked)))
                found += page["records"]  # type: ignore[arg-type]  # a list, as the next lines show
                after = page["next"]
            assert len(found) == amount
            assert all(each["owner"] == CONTROLLER.public_key.hex() for each in found)


async def test_a_page_of_an_export_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_pages, "MOST_BYTES", 5_000)
    async with serving(tmp_path) as service:
        for number in range(10):
            await endpoints.ingest(service, encoded({"text": f"{number} " + "x" * 2_000}))
        pages, after = 0, 0
        seen: list[str] = []
        while True:
            page: Any = opened(await endpoints.export(service, signed(CONTROLLER, "export", {"after": after})))
            seen += [record["text"][0] for record in page["records"]]
            pages += 1
            if page["next"] is None:
                break
            after = page["next"]
        assert seen == [str(number) for number in range(10)]
        assert pages == 5
