"""Shares, conversations and attestations on a disk that is full, read-only or damaged: told, and over when that is."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engram.durable.driver import sqlite3
from engram.memory.errors import TruthUnavailable, TruthUnreadable, WriteUnknown
from engram.memory.store.notebook_db import Notebook
from engram.miner.service import Service
from tests import shared
from tests.miner import endpoints
from tests.miner.endpoints import Answer, attested, chat_parameters, deposit, fetch
from tests.miner.nodes import CONTROLLER, encoded, in_namespace, serving, signed


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB of its own."""
    with shared.small_disk(tmp_path, "1m") as place:
        yield place


async def said(service: Service, number: int, size: int = 20_000) -> Answer:
    fields = {"user_id": "u", "conv_id": f"c{number}", "messages": [{"role": "user", "content": "x" * size}]}
    return await endpoints.save_chat(service, signed(CONTROLLER, "SaveChat", fields))


async def kept(service: Service, number: int) -> int:
    parameters = chat_parameters(CONTROLLER, "chat-history", user_id="u", conv_id=f"c{number}")
    messages: Any = (await endpoints.chat_history(service, "u", parameters)).body["messages"]
    return len(messages)


def assert_told(answer: Answer, reason: str) -> None:
    assert (answer.status, dict(answer.headers).get("Retry-After")) == (503, "2")
    assert reason in str(answer.body["error"])


def fill(path: Path) -> None:
    with open(path, "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(b"x" * 4_096)


async def test_a_full_disk_is_told_and_what_was_kept_stays(small_disk: Path) -> None:
    async with serving(small_disk) as service:
        assert (await deposit(service, CONTROLLER, "vault")).status == 200
        stored = 0
        while (answer := await said(service, stored)).status == 200:
            stored += 1
        assert_told(answer, "full")
        assert stored > 2
        assert await kept(service, stored) == 0  # nothing half
        assert await kept(service, stored - 1) == 1
        assert (await fetch(service, CONTROLLER, "vault")).status == 200
        assert_told(await said(service, 1_000, size=30_000), "full")
        assert (await endpoints.listing(service, b"{}")).status == 200
    Notebook.open(small_disk / "notebook.db").close()


async def test_the_service_goes_on_when_there_is_room_again(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    async with serving(small_disk) as service:
        assert (await said(service, 0)).status == 200
        fill(ballast)
        while (answer := await said(service, 1)).status == 200:
            pass
        assert_told(answer, "full")
        assert_told(await deposit(service, CONTROLLER, "later"), "full")
        assert_told(await endpoints.attest(service, attested(CONTROLLER, "notes")), "full")
        assert (await endpoints.attestation(service, "notes")).body["attested"] is False
        ballast.unlink()
        assert (await said(service, 1)).status == 200
        assert (await deposit(service, CONTROLLER, "later")).status == 200
        assert (await endpoints.attest(service, attested(CONTROLLER, "notes"))).status == 200
        assert (await kept(service, 0), await kept(service, 1)) == (1, 1)


async def test_a_disk_that_turns_read_only_is_told_and_still_read(small_disk: Path) -> None:
    async with serving(small_disk) as service:
        assert (await said(service, 0)).status == 200
        assert (await deposit(service, CONTROLLER, "vault")).status == 200
        # What a filesystem does to itself after an error: files that are open for writing cannot be written any more.
        service.notebook._writer.raw.execute("PRAGMA query_only = ON")  # pyright: ignore[reportPrivateUsage]
        assert_told(await said(service, 1), "readonly")
        assert_told(await deposit(service, CONTROLLER, "later"), "readonly")
        assert await kept(service, 0) == 1
        share = await endpoints.get_key_share(service, encoded(in_namespace(CONTROLLER, "vault")))
        assert share.status == 200
        service.notebook._writer.raw.execute("PRAGMA query_only = OFF")  # pyright: ignore[reportPrivateUsage]
        assert (await said(service, 1)).status == 200


def test_a_node_does_not_start_on_a_disk_that_it_cannot_write(small_disk: Path) -> None:
    Notebook.open(small_disk / "notebook.db").close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(TruthUnavailable, match=r"notebook\.db"):
        Notebook.open(small_disk / "notebook.db")


def test_a_damaged_notebook_is_refused_with_the_command_that_repairs_it(tmp_path: Path) -> None:
    path = tmp_path / "notebook.db"
    Notebook.open(path).close()
    path.write_bytes(path.read_bytes()[:4_096] + b"torn" * 5_000)
    with pytest.raises(TruthUnreadable, match="engram miner repair"):
        Notebook.open(path)
    path.write_bytes(b"this is no database" * 500)
    with pytest.raises(TruthUnreadable, match="engram miner restore"):
        Notebook.open(path)


async def test_a_deleted_conversation_is_in_no_file(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        assert (await said(service, 0)).status == 200
        files = [tmp_path / "notebook.db", tmp_path / "notebook.db-wal"]
        assert any(b"x" * 1_000 in file.read_bytes() for file in files)
        body = signed(CONTROLLER, "DeleteConversation", {"user_id": "u", "conv_id": "c0"})
        assert (await endpoints.delete_conversation(service, "c0", body)).status == 200
        assert not any(b"x" * 1_000 in file.read_bytes() for file in files)
        assert (await said(service, 1)).status == 200


@pytest.mark.parametrize("torn", ['[{"role', "{}", '[{"role": 5}]'])
async def test_a_damaged_conversation_is_told_and_others_are_read(tmp_path: Path, torn: str) -> None:
    async with serving(tmp_path) as service:
        for number in (0, 1):
            assert (await said(service, number)).status == 200
        with sqlite3.connect(tmp_path / "notebook.db") as connection:
            connection.execute("UPDATE conversations SET messages = ? WHERE conv_id = 'c0'", (torn,))
        connection.close()
        assert await kept(service, 1) == 1
        parameters = chat_parameters(CONTROLLER, "chat-history", user_id="u", conv_id="c0")
        answer = await endpoints.chat_history(service, "u", parameters)
        assert_told(answer, "engram miner verify")


async def test_an_attestation_whose_commit_is_not_known_is_told_as_it_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as service:
        write = Notebook.write

        async def unknown(self: Notebook, change: Any) -> Any:
            await write(self, change)
            raise WriteUnknown("disk I/O error")

        monkeypatch.setattr(Notebook, "write", unknown)
        answer = await endpoints.attest(service, attested(CONTROLLER, "notes"))
        assert (answer.status, answer.body["code"]) == (503, "unknown")
        assert (await endpoints.attestation(service, "notes")).body["attested"] is True


def test_a_damaged_notebook_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "notebook.db"
    Notebook.open(path).close()
    path.write_bytes(b"not a database, but long enough to be looked at as one" * 100)
    with pytest.raises(TruthUnreadable, match=r"notebook\.db"):
        Notebook.open(path)
