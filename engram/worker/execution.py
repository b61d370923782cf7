"""Calls the kind of a job, within its time; whatever the plugin does, there is an end of the job."""

from collections.abc import Callable, Mapping
from typing import final

import structlog
import trio

from engram.clock import Clock
from engram.worker import rules
from engram.worker.errors import JobFailed, OutcomeUnknown
from engram.worker.kinds import JobKind
from engram.worker.model import JobEnd, WorkerJob

Ended = Callable[[str, str, float], None]
"""Takes the kind of a job that has ended, its outcome, and the seconds that it ran."""

_log = structlog.get_logger("engram.worker")


@final
class JobExecution:
    """The kinds of one worker, and how many jobs are with them now."""

    def __init__(
        self, kinds: Mapping[str, JobKind], clock: Clock, job_s: float, ended: Ended, idle: Callable[[], None]
    ) -> None:
        """Take `job_s`, the longest that a job runs, `ended`, called at each end, and `idle`, where none runs then."""
        self._kinds = kinds
        self._clock = clock
        self._job_s = job_s
        self._ended = ended
        self._idle = idle
        self.running = 0

    def repeatable(self, kind: str) -> bool:
        """Return whether a job of this kind that was cut off may be run again."""
        known = self._kinds.get(kind)
        return known is not None and known.repeatable

    async def end_of(self, job: WorkerJob) -> JobEnd:
        """Run a job; return how it ended."""
        kind = self._kinds.get(job.kind)
        if kind is None:
            self._ended("unknown", "failed", 0.0)
            return JobEnd("failed", rules.UNKNOWN_TYPE)
        began = self._clock.monotonic()
        self.running += 1
        try:
            end = await self._called(kind, job)
        finally:
            self.running -= 1
            if not self.running:
                self._idle()
        self._ended(job.kind, end.outcome, self._clock.monotonic() - began)
        return end

    async def _called(self, kind: JobKind, job: WorkerJob) -> JobEnd:
        with trio.move_on_after(self._job_s):
            try:
                return JobEnd("done", await kind.run(job))
            except JobFailed as error:
                return JobEnd("failed", {"error": str(error)})
            except OutcomeUnknown as error:
                return rules.unknown(str(error))
            except Exception:  # noqa: BLE001 -- a plugin's bug ends its job only
                _log.exception("job_crashed", kind=job.kind, job_id=job.id)
                return rules.unknown("Job crashed")
        return rules.unknown(f"Job took longer than {self._job_s:g} s")
