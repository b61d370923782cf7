"""Everything in one long answer: whole, resumable, and never held up or held open by who takes it."""

import http.client
import json
import math
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from config.model import MinerSettings
from engram.memory.errors import TruthUnavailable
from engram.memory.upkeep.export_pages import Kind, Page
from engram.miner.handlers.export_stream import AT_ONCE, ExportStream
from tests.miner import endpoints
from tests.miner.endpoints import SHARE
from tests.miner.nodes import CONTROLLER, STRANGER, NodeProcess, node, serving, signed


class Taken:
    """A client that takes what is sent, up to `stops_at` chunks, and leaves when told."""

    def __init__(self, stops_at: float = math.inf) -> None:
        self.lines: list[dict[str, Any]] = []
        self.chunks = 0
        self.leaves = trio.Event()
        self._stops_at = stops_at

    async def send(self, message: Any) -> None:
        if self.chunks >= self._stops_at:
            await trio.sleep_forever()
        self.chunks += 1
        self.lines += [json.loads(line) for line in message["body"].splitlines()]

    async def receive(self) -> Any:
        await self.leaves.wait()
        return {"type": "http.disconnect"}


def stream(counts: list[int], first: Kind = "record", after: int = 0) -> ExportStream:
    """Three pages of records of two each, and one conversation."""

    async def read(kind: Kind, after: int) -> Page:
        if kind != "record":
            return Page([{"kind": kind, "id": 1}] if kind == "conversation" and after < 1 else [], None)
        found: list[dict[str, object]] = [{"kind": kind, "id": number} for number in range(after + 1, 7)][:2]
        return Page(found, after + 2 if after + 2 < 6 else None)

    async def end(count: int) -> object:
        return {"kind": "end", "count": count}

    return ExportStream(read, end, counts.append, first, after)


async def test_all_kinds_come_in_order_and_the_end_says_how_many() -> None:
    counts: list[int] = []
    client = Taken()
    await stream(counts).run(client.receive, client.send, trio.Event())
    assert [line.get("id", line["kind"]) for line in client.lines] == [1, 2, 3, 4, 5, 6, 1, "end"]
    assert client.lines[-1]["count"] == 7
    assert counts == [1, -1]


async def test_it_goes_on_behind_the_last_line_that_came() -> None:
    client = Taken()
    await stream([], after=4).run(client.receive, client.send, trio.Event())
    assert [line.get("id", line["kind"]) for line in client.lines] == [5, 6, 1, "end"]
    client = Taken()
    await stream([], "conversation", 1).run(client.receive, client.send, trio.Event())
    assert [line["kind"] for line in client.lines] == ["end"]


@pytest.mark.parametrize("why", ["left", "drained", "slow"])
async def test_a_stream_ends_when_nobody_takes_it(why: str, autojump_clock: MockClock) -> None:
    counts: list[int] = []
    client, draining = Taken(stops_at=1), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream(counts).run, client.receive, client.send, draining)
        await trio.testing.wait_all_tasks_blocked()
        if why == "left":
            client.leaves.set()
        elif why == "drained":
            draining.set()
    assert counts == [1, -1]
    assert client.lines[-1]["kind"] == "record"  # no end: it was cut off


async def test_records_that_cannot_be_read_cut_it_off() -> None:
    async def read(kind: Kind, after: int) -> Page:
        raise TruthUnavailable("disk I/O error")

    async def end(count: int) -> object:
        raise AssertionError("never reached")

    client = Taken()
    await ExportStream(read, end, lambda _: None, "record", 0).run(client.receive, client.send, trio.Event())
    assert client.lines == []


async def test_a_stream_is_for_the_controller_and_few_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        for body, status in (
            (b"{}", 401),
            (signed(STRANGER, "export-stream", {}), 403),
            (signed(CONTROLLER, "export", {}), 401),
            (signed(CONTROLLER, "export-stream", {"after": -1}), 400),
        ):
            answer = await endpoints.export_stream(service, body)
            assert isinstance(answer, endpoints.Answer)
            assert answer.status == status
        service.exports_open = AT_ONCE
        answer = await endpoints.export_stream(service, signed(CONTROLLER, "export-stream", {}))
        assert isinstance(answer, endpoints.Answer)
        assert answer.status == 503


@pytest.fixture
def running(tmp_path: Path) -> Iterator[NodeProcess]:
    with node(tmp_path, miner=MinerSettings(private_bucket_ms=0)) as made:
        for number in range(300):
            vector = [math.sin(number + i) for i in range(384)]
            made.post("/IngestSynapse", raw_embedding=vector, text=f"{number} " + "x" * 4_000)
        share = signed(CONTROLLER, "KeyShareSynapse", {**SHARE, "namespace": "vault"})
        assert made.ask("POST", "/KeyShareSynapse", share)[0] == 200
        yield made


def asked(running: NodeProcess, **fields: Any) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=15)
    connection.request("POST", "/export-stream", signed(CONTROLLER, "export-stream", fields))
    return connection, connection.getresponse()


@pytest.mark.serial
def test_a_phone_takes_its_memory_along_in_one_answer(running: NodeProcess) -> None:
    connection, answer = asked(running)
    assert (answer.status, answer.getheader("Content-Type")) == (200, "application/x-ndjson")
    lines = [json.loads(line) for line in answer]
    connection.close()
    assert [line["kind"] for line in lines] == ["record"] * 300 + ["key_share", "end"]
    assert (lines[-1]["count"], lines[-1]["commitment"]["count"]) == (301, 300)
    connection, answer = asked(running, after=lines[249]["id"])
    assert [json.loads(line) for line in answer][:51] == lines[250:301]
    connection.close()
    for _ in range(2 * AT_ONCE):  # leaves in the middle, by a reset
        connection, answer = asked(running)
        answer.readline()
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        answer.close()
        connection.close()
    give_up = time.monotonic() + 10
    while True:  # a server learns of a reset when it writes
        connection, answer = asked(running)
        content = answer.read()
        connection.close()
        if answer.status == 200:
            break
        assert (answer.status, time.monotonic() < give_up) == (503, True)
        time.sleep(0.02)
    assert b'"kind":"end"' in content.splitlines()[-1]
    assert running.terminate() == 0
    assert "Traceback" not in running.log()
