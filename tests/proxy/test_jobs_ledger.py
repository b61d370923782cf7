"""A ledger that cannot be read, answers too late or has wrong rows: jobs wait for it, and nothing else does."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from sqlalchemy import update
from structlog.testing import capture_logs

from actors import CallTimeout, ChildSpec, Registry, SupervisorSpec, open_system
from engram.durable.connection import open_reader
from engram.ledger import LEDGER_FILE, InlineLedger, LedgerActor, LedgerClient, LedgerUnavailable, facts, open_inline
from engram.proxy.endpoints.public import Status
from engram.proxy.exchange.transfer import Transfer
from engram.proxy.jobs import records
from engram.proxy.jobs.model import Job, JobResult
from engram.proxy.settings.model import ProxySettings, RouteSettings
from engram.proxy.tables import proxy_jobs
from tests.http.harness import Answer, Raw
from tests.proxy.backends import answer, backend
from tests.proxy.harness import Proxied, calling, proxying, settings_for
from tests.proxy.signing import ALICE, headers_of, raw, signed

LATE = partial(CallTimeout, "ledger", 30.0, taken=True)


def settings(port: int, after_s: float = 5.0) -> ProxySettings:
    """Jobs at /edit, and /inference without them."""
    return settings_for(port, routes=(RouteSettings(path="/edit", backend="servers", answer_after_s=after_s),))


async def post(client: Raw, *more: str) -> Answer:
    return await client.ask(raw("POST", "/edit", b"{}", headers_of(b"{}"), *more))


async def fetch(client: Raw, job_id: object) -> Answer:
    return await client.ask(signed(f"/jobs/{job_id}", b"", method="GET"))


@asynccontextmanager
async def threaded(folder: Path) -> AsyncIterator[LedgerClient]:
    """The ledger as a process has it: a writer and readers in threads, on a file."""
    registry, lost = Registry(), list[Any]()
    spec = SupervisorSpec("root", (ChildSpec("ledger", lambda: LedgerActor(folder, lost.append), name="ledger"),))
    async with open_system(spec, registry=registry):
        ledger = LedgerClient(registry.ref(LedgerActor, "ledger"), folder)
        yield ledger
        ledger.close()
    assert lost == []


def pages_of_jobs(path: Path) -> tuple[int, list[int]]:
    """The size of a page, and the first pages of the table of jobs and of its indexes."""
    with closing(open_reader(path)) as raw_connection:
        (size,) = raw_connection.execute("PRAGMA page_size").fetchone()
        found = raw_connection.execute("SELECT rootpage FROM sqlite_master WHERE tbl_name = 'proxy_jobs'").fetchall()
    return size, [number for (number,) in found]


class Damaged:
    """A file whose pages of jobs are overwritten, until they are put back."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size, numbers = pages_of_jobs(path)
        with path.open("rb") as file:
            self._pages = {number: self._page(file, number) for number in numbers}

    def _page(self, file: Any, number: int) -> bytes:
        file.seek((number - 1) * self._size)
        return bytes(file.read(self._size))

    def overwrite(self) -> None:
        self._put(dict.fromkeys(self._pages, b"\xa5" * self._size))

    def put_back(self) -> None:
        self._put(self._pages)

    def _put(self, pages: dict[int, bytes]) -> None:
        with self._path.open("r+b") as file:
            for number, page in pages.items():
                file.seek((number - 1) * self._size)
                file.write(page)


def made(folder: Path, **values: object) -> None:
    """Write a ledger that has one job, which is done; nothing of it is in the log of what is new."""
    with closing(open_inline(folder / LEDGER_FILE)) as ledger:
        job = Job("j1", ALICE.public_key, "running", "/edit", b"h", 1e9)
        done = JobResult("done", 200, b"[]", b"kept", "done")
        ledger.write_now(lambda connection: records.begin(connection, job, None))
        ledger.write_now(lambda connection: records.end(connection, "j1", done, time.time()))
        if values:
            ledger.write_now(lambda connection: connection.execute(update(proxy_jobs).values(values)))


def refused(got: Answer, proxied: Proxied) -> bool:
    """Whether it is the refusal of a ledger that does not answer, whose cause is the operator's alone."""
    assert (got.status, got.json()["code"], got.headers["retry-after"]) == (503, "jobs_unavailable", "5")
    assert b"ledger" not in got.body
    ended = proxied.ends[-1]
    return (ended.code, ended.status) == ("jobs_unavailable", 503) and "ledger" in ended.detail


async def test_a_damaged_table_of_jobs_is_503_for_jobs_alone_and_they_go_on_when_it_is_whole(tmp_path: Path) -> None:
    made(tmp_path)
    damaged = Damaged(tmp_path / LEDGER_FILE)
    with capture_logs() as logs:
        async with (
            backend(answer(b"served")) as servers,
            threaded(tmp_path) as ledger,
            proxying(settings(servers.port), ledger=ledger) as proxied,
            calling(proxied) as client,
        ):
            damaged.overwrite()
            await ledger.write(lambda connection: facts.put(connection, "pages", "are read again"))
            assert refused(await fetch(client, "j1"), proxied)
            assert refused(await post(client, "Idempotency-Key: one"), proxied)
            assert "malformed" in proxied.ends[-1].detail
            shown: Any = Status(proxied.state).document(proxied.state.plan, private=True)
            assert "malformed" in shown["requests"]["jobs_error"]
            public: Any = Status(proxied.state).document(proxied.state.plan)
            assert "jobs_error" not in public["requests"]
            rendered = proxied.state.metrics.render().decode()
            assert 'engram_proxy_ends_total{end="jobs_unavailable",route="/edit"} 1.0' in rendered
            assert 'engram_proxy_ends_total{end="jobs_unavailable",route="/jobs/*"} 1.0' in rendered
            assert (servers.requests, proxied.in_progress) == (0, 0), "nothing was begun"
            assert (await client.ask(signed("/inference"))).body == b"served"
            damaged.put_back()
            await ledger.write(lambda connection: facts.put(connection, "pages", "are read once more"))
            assert (await fetch(client, "j1")).body == b"kept"
            assert (await post(client, "Idempotency-Key: one")).body == b"served"
            assert proxied.state.jobs.problem == ""
    said = [
        (line["event"], line["log_level"])
        for line in logs
        if str(line["event"]).startswith("jobs_a") or line["event"] == "jobs_unavailable"
    ]
    assert said == [("jobs_unavailable", "error"), ("jobs_available_again", "info")]


@pytest.mark.parametrize("values", [{"state": "nonsense"}, {"headers": b"{"}], ids=["state", "headers"])
async def test_a_job_that_is_not_as_it_was_written_is_503_and_tells_nothing_of_it(
    tmp_path: Path, values: dict[str, object]
) -> None:
    made(tmp_path, **values)
    with closing(open_inline(tmp_path / LEDGER_FILE)) as ledger:
        async with proxying(settings(9), ledger=ledger) as proxied, calling(proxied) as client:
            got = await fetch(client, "j1")
            assert (got.status, got.json()["code"]) == (503, "jobs_unavailable")
            assert b"nonsense" not in got.body
            assert "as it was written" in proxied.ends[-1].detail or "as they were written" in proxied.ends[-1].detail


class Faults:
    """What a ledger's next commits meet: each is an error or None, before or after it takes effect."""

    def __init__(self, ledger: InlineLedger) -> None:
        self.before: list[Exception | None] = []
        self.after: list[Exception | None] = []
        self.met = trio.Event()
        """Set when all have been met."""
        ledger.before_commit = partial(self._meet, self.before)
        ledger.after_commit = partial(self._meet, self.after)

    def _meet(self, faults: list[Exception | None]) -> None:
        if not faults:
            return
        fault = faults.pop(0)
        if not self.before and not self.after:
            self.met.set()
        if fault is not None:
            raise fault


async def test_a_job_whose_beginning_was_noted_too_late_is_taken_back_and_begins_when_it_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engram.proxy.jobs.worker._AGAIN_S", 0.02)
    async with (
        backend(answer(b"served")) as servers,
        proxying(settings(servers.port)) as proxied,
        calling(proxied) as client,
    ):
        faults = Faults(proxied.ledger)
        faults.after += [LATE()]
        faults.before += [None, LedgerUnavailable("no"), LedgerUnavailable("no")]
        got = await post(client, "Idempotency-Key: one")
        assert (got.status, got.json()["code"]) == (503, "jobs_unavailable")
        again = await post(client, "Idempotency-Key: one")
        assert (again.status, again.json()["code"]) == (503, "jobs_unavailable"), "it is noted, and does not run"
        with trio.fail_after(5):
            await faults.met.wait()
            while (again := await post(client, "Idempotency-Key: one")).status == 503:
                pass
        assert (again.status, again.body, again.headers["x-job-status"]) == (200, b"served", "done")
        assert servers.requests == 1
        assert proxied.in_progress == 0


async def test_a_ledger_that_answers_too_late_loses_no_result_and_cuts_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engram.proxy.jobs.worker._AGAIN_S", 0.02)
    monkeypatch.setattr("engram.proxy.jobs.worker._SWEEP_S", 0.02)
    async with (
        backend("wait", answer(b"late")) as servers,
        proxying(settings(servers.port, 0.05)) as proxied,
        calling(proxied) as client,
    ):
        job_id = (await post(client)).json()["job_id"]
        faults = Faults(proxied.ledger)
        faults.before += [LATE(), LATE()]
        with trio.fail_after(5):
            await faults.met.wait()
        assert len(proxied.state.jobs) == 1, "a sweep that fails ends no job"
        monkeypatch.setattr("engram.proxy.jobs.worker._SWEEP_S", 60.0)
        servers.go_on.set()
        faults.after += [LATE(), LATE()]
        with trio.fail_after(5):
            for running in list(proxied.state.jobs._running.values()):
                await running.ended.wait()
        got = await fetch(client, job_id)
        assert (got.status, got.body, got.headers["x-job-status"]) == (200, b"late", "done")


async def test_a_result_that_was_noted_later_than_its_client_was_given_the_id_waits_to_be_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engram.proxy.jobs.worker._AGAIN_S", 0.02)
    async with (
        backend("wait", answer(b"quick")) as servers,
        proxying(settings(servers.port, 0.2)) as proxied,
        calling(proxied) as client,
    ):
        await client.send(raw("POST", "/edit", b"{}", headers_of(b"{}")))
        await servers.began.wait()
        faults = Faults(proxied.ledger)
        faults.after += [LATE()]  # it is in the ledger, and its client is still waiting
        faults.before += [None, *(LedgerUnavailable("no") for _ in range(20))]
        servers.go_on.set()
        got = await client.read()
        assert got.status == 202
        with trio.fail_after(5):
            for running in list(proxied.state.jobs._running.values()):
                await running.ended.wait()
        proxied.ledger.write_now(lambda connection: records.expire(connection, 0.0, 1e12))
        fetched = await fetch(client, got.json()["job_id"])
        assert (fetched.status, fetched.body) == (200, b"quick")


async def test_a_fault_of_the_proxy_ends_its_job_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        backend(answer(b"served")) as servers,
        proxying(settings(servers.port)) as proxied,
        calling(proxied) as client,
    ):
        monkeypatch.setattr(Transfer, "run", lambda *_: 1 / 0)
        got = await post(client, "Idempotency-Key: one")
        assert (got.status, got.json()["code"], got.headers["x-job-status"]) == (500, "internal", "failed")
        assert proxied.in_progress == 0
