"""Jobs: run once by their id, answered whoever asks, bounded, and delivered until they are acknowledged."""

from typing import Any

import trio
import trio.lowlevel

from engram.ledger import LedgerUnavailable, open_inline
from engram.worker import records
from engram.worker.errors import JobFailed, OutcomeUnknown
from engram.worker.model import JobCounts, WorkerJob
from tests.worker.harness import Echo, eventually, orchestrating, working


def job(job_id: str, payload: Any = None, kind: str = "inference") -> dict[str, Any]:
    return {"id": job_id, "type": kind, "payload": payload}


async def test_a_job_with_an_id_runs_once_however_often_it_is_sent() -> None:
    echo = Echo()
    async with orchestrating() as orchestrator, working(orchestrator.url, {"inference": echo}):
        session = await orchestrator.connected()
        answers: list[Any] = []
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(lambda: _append(answers, session.call("job", job("a", {"hold": "x"}))))
            while len(echo.runs) < 1:
                await trio.lowlevel.checkpoint()
            answers.append(await session.call("job", job("a", {"hold": "other"})))
            echo.let_go("x")
        await orchestrator.settled("a")
        answers.append(await session.call("job", job("a", {"hold": "x"})))
        conflict = {"error": "Job id was used for another job"}
        assert answers == [conflict, *[{"hold": "x"}] * 4]
        assert len(echo.runs) == 1


async def _append(answers: list[Any], call: Any) -> None:
    answers.append(await call)


async def test_what_is_beyond_the_places_waits_and_what_is_beyond_that_is_refused() -> None:
    echo = Echo()
    async with orchestrating() as orchestrator, working(orchestrator.url, {"inference": echo}, waiting=2) as bench:
        session = await orchestrator.connected()
        answers: list[Any] = []
        async with trio.open_nursery() as nursery:
            for number in range(6):
                sent = {"type": "inference", "payload": {"hold": "x", "n": number}}
                nursery.start_soon(lambda s=sent: _append(answers, session.call("job", s)))  # type: ignore[misc]
            await eventually(lambda: bench.service.runner.in_flight == 6)
            await eventually(lambda: (len(echo.runs), bench.service.runner.running) == (4, 4))
            full = {"error": "Worker is full", "retry_after_s": 5}
            assert await session.call("job", {"type": "inference"}) == full
            assert await session.call("job", job("a")) == full
            echo.let_go("x")
        assert sorted(each["n"] for each in answers) == [0, 1, 2, 3, 4, 5]
        assert await session.call("job", job("a", 1)) == 1


async def test_results_never_acknowledged_are_sent_again_and_never_run_again() -> None:
    echo, ledger = Echo(), open_inline()
    kinds = {"inference": echo}
    async with orchestrating() as orchestrator:
        orchestrator.acknowledges = False
        async with working(orchestrator.url, kinds, ledger=ledger, resend_s=0.05, ack_s=0.05) as bench:
            await orchestrator.connected()
            await orchestrator.post(job("a", 1))
            await orchestrator.until(lambda: orchestrator.desk.deliveries.get("a", 0) >= 3)
            assert bench.service.runner.unacknowledged == 1
            await orchestrator.sessions[-1].disconnect()  # sent at each connection as well
            seen = orchestrator.desk.deliveries["a"]
            await orchestrator.until(lambda: orchestrator.desk.deliveries["a"] > seen)
        orchestrator.acknowledges = True
        async with working(orchestrator.url, kinds, ledger=ledger) as bench:  # another process, the same ledger
            await orchestrator.settled("a")
            await eventually(lambda: not bench.service.runner.unacknowledged)
        assert await ledger.read(records.counts) == JobCounts(acknowledged=1)
        assert (len(echo.runs), orchestrator.desk.contradictions) == (1, [])
    ledger.close()


async def test_a_job_that_ran_when_the_process_ended_is_told_as_unknown_or_run_again_by_its_id() -> None:
    ledger = open_inline()
    echo, sure = Echo(), Echo(repeatable=True)
    kinds = {"inference": echo, "training": sure}
    async with orchestrating() as orchestrator:
        async with working(orchestrator.url, kinds, ledger=ledger, concurrency=2):
            await orchestrator.connected()
            await orchestrator.post(job("a", {"hold": "x"}))
            await orchestrator.post(job("b", {"hold": "x"}, "training"))
            await eventually(lambda: len(echo.runs) + len(sure.runs) == 2)
            await orchestrator.post(job("c", {"hold": "x"}))  # waits for a place
            await eventually(lambda: len(ledger.write_now(lambda c: records.unfinished(c, orchestrator.url))) == 3)
        echo.let_go("x")
        sure.let_go("x")
        async with working(orchestrator.url, kinds, ledger=ledger):
            unknown, done, later = await orchestrator.settled("a", "b", "c")
    assert unknown["outcome"] == "unknown"
    assert "may or may not have been done" in unknown["error"]
    assert (done, later) == ({"hold": "x"}, {"hold": "x"})
    assert [each.id for each in echo.runs] == ["a", "c"]
    assert [each.id for each in sure.runs] == ["b", "b"]
    ledger.close()


async def test_jobs_that_the_orchestrator_sent_in_vain_are_asked_for() -> None:
    echo = Echo()
    async with orchestrating() as orchestrator:
        orchestrator.desk.post(job("early", 1))
        async with working(orchestrator.url, {"inference": echo}, reconcile_s=0.02):
            assert await orchestrator.settled("early") == [1]
            orchestrator.desk.post(job("lost", 2))  # noted, never sent
            assert await orchestrator.settled("lost") == [2]
    assert [each.id for each in echo.runs] == ["early", "lost"]


async def test_a_backlog_that_no_message_holds_is_asked_for_part_by_part() -> None:
    echo = Echo()
    names = [f"j{number}" for number in range(300)]
    async with orchestrating() as orchestrator:
        for name in names:
            orchestrator.desk.post(job(name, "x" * 1_000))
        async with working(orchestrator.url, {"inference": echo}, waiting=1_000, max_message_bytes=100_000) as bench:
            await orchestrator.settled(*names)
            assert {(each["limit"] > 0, each["max_bytes"]) for each in orchestrator.reconciles} == {(True, 100_000)}
            assert len(orchestrator.reconciles) >= 4, "at once, not after reconcile_s each"
        status = bench.service.link.status
        assert (status.connections, status.oversized_messages) == (1, 0)
    assert sorted(each.id or "" for each in echo.runs) == sorted(names)


async def test_no_more_jobs_are_asked_for_than_there_is_room_for() -> None:
    async with orchestrating() as orchestrator:
        for number in range(30):
            orchestrator.desk.post(job(f"j{number}", {"hold": "x"}))
        async with working(orchestrator.url, {"inference": Echo()}, concurrency=2, waiting=3) as bench:
            await eventually(lambda: bench.service.runner.in_flight == 5)
            assert orchestrator.reconciles[0]["limit"] == 5


async def test_a_job_that_fits_into_no_message_holds_up_no_other() -> None:
    async with orchestrating() as orchestrator:
        orchestrator.desk.post(job("large", "x" * 200_000))
        orchestrator.desk.post(job("small", 1))
        async with working(orchestrator.url, max_message_bytes=100_000) as bench:
            assert await orchestrator.settled("small") == [1]
            assert bench.service.link.status.connections == 1


async def test_an_orchestrator_that_answers_beyond_the_bounds_costs_that_answer_alone() -> None:
    async with orchestrating() as orchestrator:
        orchestrator.heeds_bounds = False
        orchestrator.desk.post(job("large", "x" * 200_000))
        async with working(orchestrator.url, max_message_bytes=100_000) as bench:
            await eventually(lambda: bench.service.link.status.oversized_messages == 1)
            await orchestrator.post(job("sent", 1))
            assert await orchestrator.settled("sent") == [1]
            assert bench.service.link.status.connections == 1


async def test_the_end_waits_for_running_jobs_and_their_acknowledgements() -> None:
    echo, ledger = Echo(), open_inline()
    async with (
        orchestrating() as orchestrator,
        working(orchestrator.url, {"inference": echo}, ledger=ledger, concurrency=1) as bench,
    ):
        session = await orchestrator.connected()
        await orchestrator.post(job("runs", {"hold": "x"}))
        await eventually(lambda: bool(echo.runs))
        await orchestrator.post(job("waits", 2))
        await eventually(lambda: bench.service.runner.in_flight == 2)
        bench.context.stop_requested.set()
        refused = await session.call("job", {"type": "inference", "payload": 3})
        assert refused == {"error": "Worker is stopping", "retry_after_s": 30}
        assert not bench.ended.is_set()
        echo.let_go("x")
        await bench.stop()
        assert await orchestrator.settled("runs") == [{"hold": "x"}]
        assert await ledger.read(records.counts) == JobCounts(accepted=1, acknowledged=1)
        async with working(orchestrator.url, {"inference": echo}, ledger=ledger):
            assert await orchestrator.settled("waits") == [2]
    ledger.close()


class Faulty:
    """Each job fails in the way its payload says."""

    repeatable = False

    async def run(self, sent: WorkerJob) -> Any:
        match sent.payload:
            case "failed":
                raise JobFailed("No such model")
            case "unknown":
                raise OutcomeUnknown("Backend's answer was lost")
            case "crash":
                raise KeyError("secret")
            case "late":
                await trio.sleep_forever()
            case "large":
                return "x" * 2_000
            case "set":
                return object()
            case "number":
                return 2**80
            case _:
                pass
        return sent.payload


async def test_each_way_that_a_job_ends_has_a_result() -> None:
    kinds = {"inference": Faulty()}
    async with orchestrating() as orchestrator, working(orchestrator.url, kinds, job_s=0.05, max_result_bytes=1_000):
        session = await orchestrator.connected()
        for number, (payload, text, unknown) in enumerate(
            [
                ("failed", "No such model", False),
                ("unknown", "Backend's answer was lost", True),
                ("crash", "Job crashed", True),
                ("late", "Job took longer than 0.05 s", True),
                ("large", "Result has 2003 bytes, more than 1000", True),
                ("set", "Result cannot be sent", True),
                ("number", "Result cannot be sent", True),
            ]
        ):
            nameless = {"type": "inference", "payload": payload}
            for sent in [job(str(number), payload)] + ([] if payload in ("large", "number") else [nameless]):
                result = await session.call("job", sent)
                assert result["error"].startswith(text)
                assert (result.get("outcome") == "unknown") is unknown


async def test_results_count_as_delivered_by_the_acknowledgement_where_there_is_no_event() -> None:
    ledger = open_inline()
    async with orchestrating() as orchestrator, working(orchestrator.url, ledger=ledger, results="ack") as bench:
        session = await orchestrator.connected()
        assert await session.call("job", job("a", 1)) == 1
        await eventually(lambda: ledger.write_now(records.counts).acknowledged == 1)
        assert (bench.service.runner.unacknowledged, orchestrator.desk.deliveries) == (0, {})
        assert await session.call("job", job("a", 1)) == 1
    ledger.close()


async def test_where_acknowledgements_alone_carry_results_no_job_is_taken_that_has_none() -> None:
    echo = Echo()
    async with (
        orchestrating() as orchestrator,
        working(orchestrator.url, {"inference": echo}, results="ack", reconcile_s=0.001) as bench,
    ):
        orchestrator.desk.post(job("sent in vain", 2))
        session = await orchestrator.connected()
        for number in range(20):
            assert await session.call("job", job(str(number), 1)) == 1
        assert (orchestrator.reconciles, bench.service.runner.unacknowledged) == ([], 0)
        assert "sent in vain" not in [each.id for each in echo.runs]
        assert await session.call("job", job("sent in vain", 2)) == 2  # sent again, it runs and is answered


async def test_a_worker_whose_results_nobody_takes_refuses_jobs_with_an_id() -> None:
    async with orchestrating() as orchestrator, working(orchestrator.url, unacknowledged=2):
        session = await orchestrator.connected()
        orchestrator.acknowledges = False
        assert [await session.call("job", job(name, 1)) for name in "ab"] == [1, 1]
        assert await session.call("job", job("c", 1)) == {"error": "Worker is full", "retry_after_s": 5}
        assert await session.call("job", job("a", 1)) == 1  # what is known is answered all the same
        assert await session.call("job", job("a", 2)) == {"error": "Job id was used for another job"}
        assert await session.call("job", {"type": "inference", "payload": 2}) == 2


async def test_a_ledger_that_takes_nothing_refuses_and_forgets() -> None:
    echo, ledger = Echo(), open_inline()
    async with orchestrating() as orchestrator, working(orchestrator.url, {"inference": echo}, ledger=ledger) as bench:
        session = await orchestrator.connected()

        def fail() -> None:
            raise LedgerUnavailable("the disk is full")

        ledger.before_commit = fail
        refused = {"error": "Worker cannot record the job", "retry_after_s": 5}
        assert await session.call("job", job("a", 1)) == refused
        ledger.before_commit = None
        assert (echo.runs, bench.service.runner.in_flight) == ([], 0)
        assert await session.call("job", job("a", 1)) == 1
    ledger.close()


async def test_jobs_are_forgotten_when_they_were_acknowledged_and_their_time_is_over() -> None:
    ledger, echo = open_inline(), Echo()
    async with (
        orchestrating() as orchestrator,
        working(orchestrator.url, {"inference": echo}, ledger=ledger, keep_s=0.001) as bench,
    ):
        session = await orchestrator.connected()
        assert await session.call("job", job("a", 1)) == 1
        await eventually(lambda: ledger.read_now(records.counts) == JobCounts(acknowledged=1))
        orchestrator.acknowledges = False
        assert await session.call("job", job("b", 2)) == 2
        await eventually(lambda: ledger.read_now(records.counts) == JobCounts(acknowledged=1, unacknowledged=1))
        await trio.sleep(0.002)  # a clock of the machine
        await bench.service.runner._sweep()
        assert await ledger.read(records.counts) == JobCounts(unacknowledged=1)
        assert await session.call("job", job("b", 2)) == 2
        assert [each.id for each in echo.runs] == ["a", "b"], "what nobody acknowledged is answered, never run again"
    ledger.close()


async def test_a_lost_acknowledgement_is_made_up_for_soon_however_long_there_was_nothing_to_send() -> None:
    async with orchestrating() as orchestrator, working(orchestrator.url, resend_s=0.1, ack_s=0.05) as bench:
        await orchestrator.connected()
        await trio.sleep(1.6)  # many passes without anything to send
        orchestrator.acknowledges = False
        await orchestrator.post(job("a", 1))
        await eventually(lambda: orchestrator.desk.deliveries.get("a", 0) >= 2, 1.2)
        orchestrator.acknowledges = True
        await eventually(lambda: not bench.service.runner.unacknowledged)


async def test_an_orchestrator_that_acknowledges_again_gets_all_that_waits_at_once() -> None:
    async with orchestrating() as orchestrator, working(orchestrator.url, resend_s=0.05, ack_s=0.001) as bench:
        session = await orchestrator.connected()
        orchestrator.acknowledges = False
        assert await session.call("job", job("a", 1)) == 1
        await eventually(lambda: orchestrator.desk.deliveries.get("a", 0) >= 5)  # the next one in 0.8 s
        orchestrator.acknowledges = True
        assert await session.call("job", job("b", 1)) == 1
        await eventually(lambda: not bench.service.runner.unacknowledged, 0.5)
        assert orchestrator.desk.deliveries["b"] == 1, "what was acknowledged is not sent again before that is noted"
