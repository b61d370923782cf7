"""What a client sees of a job: the 202 with its id, and the result when it is fetched."""

from typing import Final

import msgspec
import trio

from engram import wire
from engram.proxy.exchange.incoming import Incoming
from engram.proxy.exchange.refusing import JSON, Gone, Refusal, answer
from engram.proxy.jobs.model import Job, JobResult
from engram.proxy.jobs.worker import Jobs, RunningJob, unavailable

STATE: Final = b"x-job-status"
_POLL_S: Final = 2
_pairs = wire.decoder(list[tuple[str, str]])


async def answer_new(request: Incoming, jobs: Jobs, running: RunningJob, after_s: float, *, keep: bool) -> None:
    """Answer with the result if it is there within `after_s`, else 202 with the job's id.

    A client that leaves before that ends the job as its route says, unless `keep` (it has an Idempotency-Key to come
    back with).
    """
    gone = False

    async def watch(scope: trio.CancelScope) -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, nursery.cancel_scope)
        with trio.move_on_after(after_s):
            await running.ended.wait()
        if running.noting is not None:  # its result is the answer as soon as it is noted
            await running.noting.wait()
        nursery.cancel_scope.cancel()
    if gone and running.result is None:
        if not keep:
            running.leave()
        request.code = "client_gone"
        raise Gone
    if running.result is not None:
        try:
            await _send_result(request, running.job.id, running.result)
        finally:  # where it was lost on its way too: who has neither id nor key comes for it at once, or never
            if not running.keyed:
                await jobs.note_fetched(running.job.id)
        return
    request.code = "job"
    await _send_queued(request, running.job, after_s)


async def answer_known(request: Incoming, jobs: Jobs, job: Job, after_s: float) -> None:
    """Answer a request or a fetch for a job that has been there before."""
    if job.state == "running":
        request.code = "job"
        await _send_queued(request, job, after_s)
    elif job.state in ("done", "failed"):
        result = JobResult(job.state, job.status, job.headers, job.body, job.code)
        await _send_result(request, job.id, result)
        if request.method != "HEAD":
            await jobs.note_fetched(job.id)
    else:
        body = {"status": job.state, "job_id": job.id, "detail": _WORDS[job.state]}
        await answer(request, 200, msgspec.json.encode(body), [JSON, (STATE, job.state.encode("ascii"))])


_WORDS: Final = {
    "unknown": "The miner was restarted while this job ran: it may or may not have been done, and is not run again.",
    "fetched": "The job has ended and its result was fetched, which is not kept any longer; it is not run again.",
    "canceled": "The client left before it was given the job's id: its result was not kept.",
}


async def _send_queued(request: Incoming, job: Job, after_s: float) -> None:
    body = {"status": "queued", "job_id": job.id, "proxy_timeout_seconds": after_s}
    location = b"/jobs/" + job.id.encode("ascii")
    lines = [
        JSON,
        (STATE, b"running"),
        (b"location", location),
        (b"retry-after", b"%d" % _POLL_S),
    ]
    await answer(request, 202, msgspec.json.encode(body), lines)


async def _send_result(request: Incoming, job_id: str, result: JobResult) -> None:
    try:
        pairs = _pairs.decode(result.headers) if result.headers else []
    except msgspec.DecodeError as error:
        raise unavailable("the headers of a job's result are not as they were written") from error
    lines = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs if name != "content-length"]
    if not lines and result.state == "failed":
        lines.append(JSON)
    lines += [(STATE, result.state.encode("ascii")), (b"x-job-id", job_id.encode("ascii"))]
    request.code = result.code
    await answer(request, result.status, result.body, lines)


def require(job: Job | None) -> Job:
    """Return the job. Raises Refusal (no_job)."""
    if job is None:
        raise Refusal("no_job", "There is no such job")
    return job
