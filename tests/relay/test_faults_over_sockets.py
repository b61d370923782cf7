"""An hour of faults as in test_actor.py, over real sockets and thirty times as fast: the emitter and the receiver are
processes, which are killed as well, and what lies between them spoils two of three requests."""

import json
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from sqlalchemy import select

from engram.http.client import HttpClient
from engram.http.errors import HttpError
from engram.ledger import open_inline
from engram.relay.model import EntryState
from engram.relay.tables import relay_outbox
from engram.xeris.tables import accepted, submissions
from tests.fakes.responder import Answer, Asked, Responder
from tests.relay.emitter_program import FASTER, FIRST_NETUID, REFUSED_EVERY, STREAMS
from tests.relay.samples import KEYPAIR
from tests.xeris.xeris_process import ROOT, XerisProcess

HOUR_S = 3_600.0 / FASTER
PAYLOADS = 120
SPACING_S = HOUR_S / PAYLOADS
EMITTER_DIES_AT = (900.0, 1_500.0, 2_250.0, 3_000.0)
RECEIVER_DIES_AT = (1_700.0, 2_800.0)
SLOW_S = 1.5
"""Longer than the emitter waits for an answer."""


def is_gone(at: float) -> bool:
    """Whether nobody listens, so many seconds after the hour began."""
    return at < 600 or (at < 1_200 and int(at / 30) % 2 == 1)


FAULTS = ("answer lost", "429", "500", "garbage", "401", "cut off", "503", "portal", "404", "slow")


def fault(at: float, request: int) -> str:
    """What becomes of a request, so many seconds after the hour began; empty: it is passed on, and answered.

    One of three is well, whatever the pace at which they come: so each fault has its turn.
    """
    if not 1_200 <= at < 3_300 or request % 3 == 0:
        return ""
    return FAULTS[(request - request // 3 - 1) % len(FAULTS)]


class Line:
    """What lies between an emitter and a receiver; is gone, and does with requests what `fault` says."""

    def __init__(self, receiver_url: str) -> None:
        self.receiver_url = receiver_url
        self.began = time.monotonic()
        self.port = 0
        self.faults = Counter[str]()
        self._requests = 0
        self._http = HttpClient()
        self._responder = Responder(self._answer)

    @property
    def at(self) -> float:
        """Seconds of the hour that have passed."""
        return (time.monotonic() - self.began) * FASTER

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        for listener in await trio.open_tcp_listeners(0, host="127.0.0.1"):  # to have a port that nobody else has
            self.port = listener.socket.getsockname()[1]
            await listener.aclose()
        task_status.started()
        while True:
            while is_gone(self.at):
                self.faults["gone"] += 1
                await trio.sleep(10 / FASTER)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._end_when_gone, scope)
                    listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
                    await trio.serve_listeners(self._responder._serve, listeners)

    async def _end_when_gone(self, scope: trio.CancelScope) -> None:
        while not is_gone(self.at):  # noqa: ASYNC110  # time alone decides
            await trio.sleep(5 / FASTER)
        scope.cancel()

    async def _answer(self, asked: Asked) -> Answer | None:
        self._requests += 1
        said = fault(self.at, self._requests)
        self.faults[said or "none"] += 1
        match said:
            case "cut off":
                return None
            case "garbage":
                return 200, {}, b"\xff\x00 not json"
            case "portal":
                return 200, {"content-type": "text/html"}, b"<html>Accept our terms first.</html>"
            case "429" | "500" | "401" | "404" | "503":
                return int(said), {"retry-after": "1"} if said == "429" else {}, b"{}"
            case "slow":
                await trio.sleep(SLOW_S)
            case _:
                pass
        try:
            answer = await self._http.request(
                asked.method,
                self.receiver_url + asked.target,
                content=asked.body,
                headers={
                    name: value for name, value in asked.headers.items() if name in ("content-type", "idempotency-key")
                },
            )
        except HttpError:
            return None
        return None if said == "answer lost" else (answer.status, {}, answer.content)


@asynccontextmanager
async def line_to(receiver: XerisProcess) -> AsyncIterator[Line]:
    line = Line(receiver.url)
    async with trio.open_nursery() as nursery:
        await nursery.start(line.run)
        yield line
        nursery.cancel_scope.cancel()


class EmitterProcess:
    def __init__(self, folder: Path, url: str, began: float) -> None:
        folder.mkdir()
        self.folder, self.log = folder, folder.with_suffix(".log")
        self._command = [sys.executable, "-m", "tests.relay.emitter_program", str(folder), url]
        self._command += [str(began), str(PAYLOADS), str(SPACING_S)]
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


async def until(line: Line, at: float) -> None:
    await trio.sleep(max(0.0, at - line.at) / FASTER)


@pytest.mark.nightly
async def test_after_an_hour_of_every_fault_over_real_sockets_each_payload_is_accepted_once_and_in_order(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    netuids = [FIRST_NETUID + stream for stream in range(STREAMS)]
    receiver = XerisProcess(tmp_path / "xeris", KEYPAIR.ss58, f"netuids = {netuids}")
    request.addfinalizer(receiver.kill)
    await trio.to_thread.run_sync(receiver.start)
    async with line_to(receiver) as line, trio.open_nursery() as nursery:
        emitter = EmitterProcess(tmp_path / "emitter", f"http://127.0.0.1:{line.port}/payloads", time.time())
        request.addfinalizer(emitter.kill)

        async def receiver_dies() -> None:
            for at in RECEIVER_DIES_AT:
                await until(line, at)
                receiver.kill()
                await trio.to_thread.run_sync(receiver.start)

        nursery.start_soon(receiver_dies)
        for at in EMITTER_DIES_AT:
            await until(line, at)
            assert emitter.process.poll() is None, emitter.log.read_text()
            emitter.kill()
            emitter.start()
        with trio.fail_after(2 * HOUR_S):
            assert await trio.to_thread.run_sync(emitter.process.wait, abandon_on_cancel=True) == 0, (
                emitter.log.read_text()
            )
    receiver.kill()
    assert {"gone", *FAULTS} <= line.faults.keys(), line.faults
    sent, taken = open_inline(emitter.folder / "ledger.sqlite3"), open_inline(receiver.ledger)
    rows = select(relay_outbox.c.block, relay_outbox.c.state).where(relay_outbox.c.kind == "memory")
    states: dict[int, str] = dict(sent.read_now(lambda c: [(row[0], row[1]) for row in c.execute(rows)]))
    refused = {1_000 + number for number in range(REFUSED_EVERY, PAYLOADS + 1, REFUSED_EVERY)}
    parked = {block for block, state in states.items() if state == EntryState.ABANDONED}
    assert sorted(states) == list(range(1_001, 1_001 + PAYLOADS))
    assert set(states.values()) == {str(EntryState.DELIVERED), str(EntryState.ABANDONED)}
    assert parked >= refused
    streams: dict[int, list[int]] = defaultdict(list)
    columns = select(accepted.c.netuid, accepted.c.block).where(accepted.c.kind == "memory").order_by(accepted.c.id)
    for netuid, block in taken.read_now(lambda c: c.execute(columns).all()):
        streams[netuid].append(block)
    assert all(blocks == sorted(blocks) for blocks in streams.values()), "in the order of each stream"
    held = [block for blocks in streams.values() for block in blocks]
    assert len(held) == len(set(held)), "none twice"
    assert not refused & set(held)
    assert set(states) - parked <= set(held), "what was delivered is there"
    gaps = taken.read_now(lambda c: c.scalars(select(accepted.c.document).where(accepted.c.kind == "gap")).all())
    assert {json.loads(document)["block"] for document in gaps} >= refused, "each behind a marker that says so"
    seen = select(submissions.c.block, submissions.c.signed_hash).where(submissions.c.kind == "memory").distinct()
    assert max(Counter(block for block, _ in taken.read_now(lambda c: c.execute(seen).all())).values()) == 1
    sent.close()
    taken.close()
