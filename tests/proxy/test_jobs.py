"""Requests that become jobs: 202 with an unguessable id, one result, fetched by the key that posted it."""

from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import pytest
import trio

from engram.clock import ManualClock
from engram.ledger import InlineLedger, LedgerUnavailable, open_inline
from engram.proxy.jobs import records
from engram.proxy.jobs.model import Job, JobResult
from engram.proxy.settings.model import JobSettings, LimitSettings, ProxySettings, RouteSettings
from tests.http.harness import Answer, Raw
from tests.proxy.backends import answer, backend
from tests.proxy.harness import Proxied, calling, proxying, settings_for
from tests.proxy.signing import ALICE, CHARLIE, headers_of, raw, signed


def settings(port: int, after_s: float = 0.05, **sections: Any) -> ProxySettings:
    return settings_for(port, route={"answer_after_s": after_s}, **sections)


async def post(client: Raw, body: bytes = b"{}", *more: str) -> Answer:
    return await client.ask(raw("POST", "/inference", body, headers_of(body), *more))


async def fetch(client: Raw, job_id: object, by: Any = ALICE) -> Answer:
    return await client.ask(raw("GET", f"/jobs/{job_id}", b"", headers_of(b"", by=by, method="GET")))


async def ended(proxied: Proxied) -> None:
    """Wait until no job runs."""
    with trio.fail_after(5):
        for running in list(proxied.state.jobs._running.values()):
            await running.ended.wait()


async def test_an_answer_in_time_is_the_backends_own() -> None:
    async with (
        backend(answer(b"quick", "200 OK", "x-own: 1")) as servers,
        proxying(settings(servers.port, 5.0)) as proxied,
        calling(proxied) as client,
    ):
        got = await post(client)
        assert (got.status, got.body, got.headers["x-own"]) == (200, b"quick", "1")
        assert (await proxied.end()).code == "done"


async def test_a_late_answer_is_fetched_by_its_poster_alone() -> None:
    async with (
        backend("wait", answer(b"late", "201 Made", "content-type: text/plain")) as servers,
        proxying(settings(servers.port)) as proxied,
        calling(proxied) as client,
    ):
        got = await post(client)
        job_id = got.json()["job_id"]
        assert (got.status, got.json()) == (
            202,
            {"status": "queued", "job_id": job_id, "proxy_timeout_seconds": 0.05},
        )
        assert len(str(job_id)) == 48
        assert got.headers["location"] == f"/jobs/{job_id}"
        assert (await proxied.end()).code == "job"
        assert (await fetch(client, job_id)).status == 202
        servers.go_on.set()
        await ended(proxied)
        stranger = await fetch(client, job_id, by=CHARLIE)
        assert (stranger.status, (await proxied.end()).code) == (404, "no_job")
        result = await fetch(client, job_id)
        assert (result.status, result.body, result.headers["content-type"]) == (201, b"late", "text/plain")
        assert result.headers["x-job-status"] == "done"
        again = await fetch(client, job_id)
        assert again.body == b"late", "kept for a while, in case the answer was lost"
        assert servers.requests == 1


async def test_a_result_that_its_client_did_not_receive_was_not_fetched() -> None:
    large, jobs = b"x" * 8_000_000, JobSettings(max_result_bytes=8_000_000)  # more than the system takes at once
    async with (
        backend("wait", answer(large)) as servers,
        proxying(settings(servers.port, jobs=jobs)) as proxied,
        calling(proxied) as client,
    ):
        job_id = (await post(client)).json()["job_id"]
        keyed = (await post(client, b"{}", "Idempotency-Key: one")).json()["job_id"]
        servers.go_on.set()
        await ended(proxied)
        before = len(proxied.ends)
        for path in (f"/jobs/{job_id}", f"/jobs/{keyed}"):
            async with calling(proxied) as other:
                await other.send(signed(path, b"", method="GET"))
                assert await other.stream.receive_some(300)
                other.stream.socket.setsockopt(SOL_SOCKET, SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # it ends by a reset
            await proxied.ended(before := before + 1)
            cut = proxied.ends[-1]
            assert (cut.code, cut.status) == ("client_gone_answer", 499)
            assert cut.sent_bytes < len(large)
            head = await client.ask(raw("HEAD", path, b"", headers_of(b"", method="HEAD")), "HEAD")
            assert (head.status, head.body) == (200, b"")
            await proxied.ended(before := before + 1)
        proxied.ledger.write_now(lambda connection: records.expire(connection, 0.0, 1e12))
        for each in (job_id, keyed):
            assert (await fetch(client, each)).body == large


async def test_a_job_outlives_its_client_once_it_has_its_id() -> None:
    async with backend("wait", answer(b"late")) as servers, proxying(settings(servers.port)) as proxied:
        async with calling(proxied) as client:
            job_id = (await post(client)).json()["job_id"]
        servers.go_on.set()
        await ended(proxied)
        async with calling(proxied) as client:
            assert (await fetch(client, job_id)).body == b"late"


async def test_a_client_that_leaves_before_it_has_an_id_cuts_its_job() -> None:
    async with backend("hang") as servers, proxying(settings(servers.port, 5.0)) as proxied:
        async with calling(proxied) as client:
            await client.send(signed("/inference"))
            await servers.began.wait()
        with trio.fail_after(1):
            await servers.closed.wait()
        left = await proxied.end()
        assert (left.code, left.status) == ("client_gone", 499)
        await ended(proxied)
        assert proxied.in_progress == 0


async def test_a_route_that_drains_lets_the_backend_of_a_job_finish_whose_client_left_before_it_had_an_id() -> None:
    drains = {"answer_after_s": 5.0, "on_client_gone": "drain"}
    async with (
        backend("wait", answer(b"x" * 1_000)) as servers,
        proxying(settings_for(servers.port, route=drains)) as proxied,
    ):
        async with calling(proxied) as client:
            await client.send(signed("/inference"))
            await servers.began.wait()
        assert (await proxied.end()).status == 499
        (running,) = proxied.state.jobs._running.values()
        assert (servers.open, proxied.state.admission.places.taken) == (1, 1), "the backend is still at work"
        servers.go_on.set()
        with trio.fail_after(5):
            await running.ended.wait()
        assert running.result is not None
        assert (running.result.state, running.result.body) == ("canceled", b""), "no one could fetch it"
        assert proxied.state.plan.groups["servers"].upstream.idle == 1, "it had finished"
        assert proxied.in_progress == 0


@pytest.mark.parametrize("bound", [{"drain_s": 0.1}, {"drain_bytes": 10}], ids=["time", "bytes"])
async def test_the_draining_of_a_job_is_bounded(bound: dict[str, float]) -> None:
    drains = {"answer_after_s": 5.0, "on_client_gone": "drain", **bound}
    async with (
        backend("wait", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "trickle") as servers,
        proxying(settings_for(servers.port, route=drains)) as proxied,
    ):
        async with calling(proxied) as client:
            await client.send(signed("/inference"))
            await servers.began.wait()
        await proxied.end()
        servers.go_on.set()
        with trio.fail_after(5):
            await servers.closed.wait()
        await ended(proxied)
        assert proxied.in_progress == 0


async def test_a_client_that_leaves_the_queue_begins_no_job() -> None:
    limits = LimitSettings(requests_per_minute_per_address=0, requests_per_minute_per_key=0, concurrent=1)
    async with (
        backend("wait", answer()) as servers,
        proxying(settings(servers.port, 5.0, limits=limits)) as proxied,
        calling(proxied) as first,
    ):
        await first.send(signed("/inference"))
        await servers.began.wait()
        async with calling(proxied) as second:
            await second.send(signed("/inference"))
            with trio.fail_after(5):
                while not proxied.state.admission.places.waiting:
                    await trio.lowlevel.checkpoint()
        assert (await proxied.end()).code == "client_gone_queue"
        assert proxied.state.admission.places.waiting == 0
        servers.go_on.set()
        assert (await first.read()).status == 200
        await proxied.ended(2)
        assert (servers.requests, proxied.in_progress) == (1, 0)


async def test_the_same_idempotency_key_is_the_same_job() -> None:
    async with (
        backend("wait", answer(b"late")) as servers,
        proxying(settings(servers.port)) as proxied,
        calling(proxied) as client,
    ):
        first = await post(client, b"{}", "Idempotency-Key: one")
        again = await post(client, b"{}", "Idempotency-Key: one")
        assert first.json()["job_id"] == again.json()["job_id"]
        other = await post(client, b"[]", "Idempotency-Key: one")
        assert (other.status, (await proxied.end()).code) == (409, "job_conflict")
        servers.go_on.set()
        await ended(proxied)
        done = await post(client, b"{}", "Idempotency-Key: one")
        assert (done.status, done.body) == (200, b"late")
        assert servers.requests == 1
        assert proxied.in_progress == 0


async def test_a_running_job_does_not_keep_its_poster_from_following_it() -> None:
    limits = LimitSettings(requests_per_minute_per_address=0, requests_per_minute_per_key=0, concurrent_per_key=1)
    async with (
        backend("wait", answer(b"late")) as servers,
        proxying(settings(servers.port, limits=limits)) as proxied,
        calling(proxied) as client,
    ):
        job_id = (await post(client, b"{}", "Idempotency-Key: one")).json()["job_id"]
        refused = await post(client)
        assert (refused.status, refused.json()["code"]) == (429, "concurrency_key"), "another job is one too many"
        assert (await fetch(client, job_id)).status == 202
        assert (await post(client, b"{}", "Idempotency-Key: one")).json()["job_id"] == job_id
        assert (await client.ask(signed("/capacity", b"", method="GET"))).status == 200
        servers.go_on.set()
        await ended(proxied)
        assert (await fetch(client, job_id)).body == b"late"
        assert proxied.in_progress == 0


async def test_following_a_job_counts_for_the_rate_of_its_poster() -> None:
    limits = LimitSettings(requests_per_minute_per_address=0, requests_per_minute_per_key=1)
    async with proxying(settings(9, limits=limits)) as proxied, calling(proxied) as client:
        seen = {(await fetch(client, "none")).status for _ in range(30)}
        assert seen == {404, 429}
        assert proxied.ends[-1].code == "rate"


async def test_a_failed_job_says_how() -> None:
    async with (
        backend("wait", "close") as servers,
        proxying(settings(servers.port)) as proxied,
        calling(proxied) as client,
    ):
        job_id = (await post(client)).json()["job_id"]
        servers.go_on.set()
        await ended(proxied)
        got = await fetch(client, job_id)
        assert (got.status, got.headers["x-job-status"], got.json()["code"]) == (502, "failed", "backend_cut")


async def test_no_half_result_is_kept() -> None:
    cut = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"
    async with (
        backend("wait", cut, "close") as servers,
        proxying(settings(servers.port)) as proxied,
        calling(proxied) as client,
    ):
        job_id = (await post(client)).json()["job_id"]
        servers.go_on.set()
        await ended(proxied)
        got = await fetch(client, job_id)
        assert got.status == 502
        assert b"half" not in got.body


async def test_results_and_jobs_are_bounded() -> None:
    jobs = JobSettings(max_result_bytes=10, open=1)
    async with (
        backend("wait", answer(b"x" * 11)) as servers,
        proxying(settings(servers.port, jobs=jobs)) as proxied,
        calling(proxied) as client,
    ):
        job_id = (await post(client, b"{}", "Idempotency-Key: one")).json()["job_id"]
        refused = await post(client)
        assert (refused.status, (await proxied.end()).code) == (503, "jobs_full")
        again = await post(client, b"{}", "Idempotency-Key: one")
        assert again.json()["job_id"] == job_id, "it is found, although no other could begin"
        servers.go_on.set()
        await ended(proxied)
        got = await fetch(client, job_id)
        assert (got.status, got.json()["code"]) == (502, "job_result_too_large")


@pytest.mark.parametrize(
    "begun",
    [b"transfer-encoding: chunked\r\n\r\n" + b"b\r\n" + b"x" * 11 + b"\r\n", b"content-length: 11\r\n\r\n"],
    ids=["chunks", "declared"],
)
async def test_a_result_that_is_too_large_already_is_read_no_further(begun: bytes) -> None:
    async with (
        backend(b"HTTP/1.1 200 OK\r\n" + begun, "hang") as servers,
        proxying(settings(servers.port, 5.0, jobs=JobSettings(max_result_bytes=10))) as proxied,
        calling(proxied) as client,
    ):
        got = await post(client)
        assert (got.status, got.json()["code"]) == (502, "job_result_too_large")
        with trio.fail_after(5):
            await servers.closed.wait()
        assert proxied.in_progress == 0


async def test_results_that_no_one_fetches_take_up_no_more_than_their_room() -> None:
    jobs = JobSettings(kept_bytes=1_000)
    async with (
        backend(answer(b"x" * 400)) as servers,
        proxying(settings(servers.port, 5.0, jobs=jobs)) as proxied,
        calling(proxied) as client,
    ):
        for number in range(2):
            assert (await post(client, b"{}", f"Idempotency-Key: {number}")).status == 200
        refused = await post(client)
        assert (refused.status, refused.json()["code"], refused.headers["retry-after"]) == (503, "results_full", "60")
        assert (await proxied.end()).code == "results_full"
        assert (await post(client, b"{}", "Idempotency-Key: 0")).status == 200, "what is kept is found"
        assert proxied.state.jobs.kept_bytes > 800
        other = raw("POST", "/inference", b"{}", headers_of(b"{}", by=CHARLIE))
        assert (await client.ask(other)).status == 200, "another key has room left"
        proxied.ledger.write_now(lambda connection: records.expire(connection, 1e12, 1e12))
        await proxied.state.jobs._expire()
        assert (await post(client)).status == 200


async def test_a_result_that_was_the_answer_is_not_kept_for_long() -> None:
    async with (
        backend(answer(b"quick")) as servers,
        proxying(settings(servers.port, 5.0)) as proxied,
        calling(proxied) as client,
    ):
        job_id = (await post(client)).headers["x-job-id"]
        keyed = (await post(client, b"{}", "Idempotency-Key: one")).headers["x-job-id"]
        assert (await fetch(client, job_id)).body == b"quick", "its client may have lost the answer"
        proxied.ledger.write_now(lambda connection: records.expire(connection, 0.0, 1e12))
        assert (await fetch(client, job_id)).status == 404
        assert (await fetch(client, keyed)).body == b"quick"


async def test_a_late_retry_of_a_fetched_job_is_the_same_job_and_runs_nothing_again() -> None:
    async with (
        backend(answer(b"quick")) as servers,
        proxying(settings(servers.port, 5.0, paths=("/train", "/inference"))) as proxied,
        calling(proxied) as client,
    ):
        job_id = (await post(client, b"{}", "Idempotency-Key: one")).headers["x-job-id"]
        assert (await fetch(client, job_id)).body == b"quick"
        await proxied.ended(2)
        proxied.ledger.write_now(lambda connection: records.expire(connection, 0.0, 1e12))
        await proxied.state.jobs._expire()
        assert proxied.state.jobs.kept_bytes == 0, "its result takes up no room any more"
        for again in (await post(client, b"{}", "Idempotency-Key: one"), await fetch(client, job_id)):
            assert (again.status, again.headers["x-job-status"]) == (200, "fetched")
            assert "not run again" in str(again.json()["detail"])
        assert servers.requests == 1
        other = await post(client, b"[]", "Idempotency-Key: one")
        assert (other.status, other.json()["code"]) == (409, "job_conflict")
        proxied.ledger.write_now(lambda connection: records.expire(connection, 1e12, 0.0))
        assert (await fetch(client, job_id)).status == 404, "its own time is over"


class Refusing:
    """A ledger that takes no writes while `on`."""

    def __init__(self, ledger: InlineLedger, *, on: bool = True) -> None:
        self.on, self.refused = on, 0
        self.again = trio.Event()
        """Set by the second write that was refused."""
        ledger.before_commit = self._refuse

    def _refuse(self) -> None:
        if self.on:
            self.refused += 1
            if self.refused > 1:
                self.again.set()
            raise LedgerUnavailable("the disk is full")


async def test_a_ledger_that_takes_no_sweep_ends_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engram.proxy.jobs.worker._SWEEP_S", 0.01)
    async with (
        backend("wait", answer(b"late")) as servers,
        proxying(settings(servers.port)) as proxied,
        calling(proxied) as client,
    ):
        job_id = (await post(client)).json()["job_id"]
        ledger = Refusing(proxied.ledger)
        with trio.fail_after(5):
            await ledger.again.wait()
        assert len(proxied.state.jobs) == 1
        ledger.on = False
        servers.go_on.set()
        await ended(proxied)
        assert (await fetch(client, job_id)).body == b"late"


async def test_a_result_that_the_ledger_does_not_take_at_first_is_noted_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engram.proxy.jobs.worker._AGAIN_S", 0.01)
    async with (
        backend("wait", answer(b"late")) as servers,
        proxying(settings(servers.port)) as proxied,
        calling(proxied) as client,
    ):
        ledger = Refusing(proxied.ledger, on=False)
        job_id = (await post(client)).json()["job_id"]
        ledger.on = True
        servers.go_on.set()
        with trio.fail_after(5):
            await ledger.again.wait()
        assert (await fetch(client, job_id)).status == 202
        assert proxied.state.admission.places.taken == 0, "what it held of the miner is free"
        ledger.on = False
        await ended(proxied)
        assert (await fetch(client, job_id)).body == b"late"


async def test_a_client_whose_result_is_not_noted_in_time_is_given_the_jobs_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engram.proxy.jobs.worker._AGAIN_S", 0.01)
    async with (
        backend("wait", answer(b"quick")) as servers,
        proxying(settings(servers.port, 0.2)) as proxied,
        calling(proxied) as client,
    ):
        ledger = Refusing(proxied.ledger, on=False)
        await client.send(raw("POST", "/inference", b"{}", headers_of(b"{}")))
        await servers.began.wait()
        ledger.on = True
        servers.go_on.set()
        got = await client.read()
        assert got.status == 202
        ledger.on = False
        await ended(proxied)
        assert (await fetch(client, got.json()["job_id"])).body == b"quick"
        proxied.ledger.write_now(lambda connection: records.expire(connection, 0.0, 1.0))
        assert (await fetch(client, got.json()["job_id"])).body == b"quick", "it was no answer"


async def test_a_ledger_that_takes_nothing_at_the_start_holds_up_jobs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engram.proxy.jobs.worker._AGAIN_S", 0.01)
    books = open_inline(tmp_path / "ledger")
    row(books)
    ledger = Refusing(books)
    async with backend(answer(b"served")) as servers:
        making = RouteSettings(path="/edit", backend="servers", answer_after_s=5.0)
        async with (
            proxying(settings_for(servers.port, routes=(making,)), ledger=books) as proxied,
            calling(proxied) as client,
        ):
            assert (await client.ask(signed("/inference"))).body == b"served"
            got = await client.ask(signed("/edit"))
            assert (got.status, got.json()["code"], got.headers["retry-after"]) == (503, "jobs_not_ready", "5")
            assert proxied.ends[-1].code == "jobs_not_ready"
            assert (await fetch(client, "j1")).status == 202
            with trio.fail_after(5):
                await ledger.again.wait()
                ledger.on = False
                while (await client.ask(signed("/edit"))).status == 503:
                    pass
            assert (await fetch(client, "j1")).headers["x-job-status"] == "unknown"
    books.close()


def row(ledger: InlineLedger, **values: Any) -> None:
    job = Job("j1", ALICE.public_key, "running", "/inference", b"h", ManualClock().now())
    ledger.write_now(lambda connection: records.begin(connection, job, values.get("key")))


async def test_a_job_that_ran_when_the_process_ended_is_unknown_and_never_run_again(tmp_path: Path) -> None:
    ledger = open_inline(tmp_path / "ledger")
    row(ledger, key="one")
    async with (
        backend(answer()) as servers,
        proxying(settings(servers.port), ledger=ledger) as proxied,
        calling(proxied) as client,
    ):
        got = await fetch(client, "j1")
        assert (got.status, got.headers["x-job-status"]) == (200, "unknown")
        assert "not run again" in str(got.json()["detail"])
        assert servers.requests == 0
    ledger.close()


async def test_results_are_kept_until_they_expire_or_have_been_fetched() -> None:
    ledger, clock = open_inline(), ManualClock()
    row(ledger)
    done = JobResult("done", 200, b"[]", b"x", "done")
    ledger.write_now(lambda connection: records.end(connection, "j1", done, clock.now()))

    def expire(connection: Any) -> int:
        return records.expire(connection, clock.now() - 3_600, clock.now() - 60)

    clock.advance(3_599)
    assert ledger.write_now(expire) == 0
    ledger.write_now(lambda connection: records.fetched(connection, "j1", clock.now() - 61))
    assert ledger.write_now(expire) == 1
    ledger.close()
