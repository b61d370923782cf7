"""What happens to jobs, as the ledger is told of it. What it does not take, as on a full disk, is tried again."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar, final

import msgspec
import structlog
import trio
from sqlalchemy import Connection

from actors import Backoff
from engram.clock import Clock
from engram.ledger import Ledger, LedgerUnavailable
from engram.worker import records
from engram.worker.model import JobEnd

T = TypeVar("T")

_AGAIN: Final = Backoff(1.0, 30.0, jitter=0.0)
"""Between tries. One process writes to a ledger: there is nobody to keep out of step with."""

_log = structlog.get_logger("engram.worker")


@final
class Journal:
    """The jobs of one orchestrator in the ledger, from their start on."""

    def __init__(self, ledger: Ledger, clock: Clock, orchestrator: str, unwritten: Callable[[], None]) -> None:
        """Take `unwritten`, which is told of each write that the ledger did not take."""
        self._ledger = ledger
        self._clock = clock
        self._by = orchestrator
        self._unwritten = unwritten
        self._acknowledged: set[str] = set()
        """Ids whose results were acknowledged, which the ledger has not taken yet."""

    async def start(self, job_id: str) -> None:
        """Note that an accepted job runs from now on; tries until it is cancelled."""
        await self._insist("job_not_started", job_id, lambda c: records.start(c, self._by, job_id))

    async def end(self, job_id: str, end: JobEnd) -> bool:
        """Keep a result; return False when the job had ended before.

        Tries until it is cancelled, and once more then: a job that was done and whose result is not kept is told as
        unknown.
        """
        result, at = msgspec.msgpack.encode(end.result), self._clock.now()

        def keep(c: Connection) -> bool:
            return records.end(c, self._by, job_id, outcome=end.outcome, result=result, at=at)

        try:
            return await self._insist("result_not_kept", job_id, keep)
        except trio.Cancelled:
            with trio.CancelScope(shield=True), suppress(LedgerUnavailable):
                await self._ledger.write(keep)
            raise

    async def acknowledge(self, *job_ids: str) -> int:
        """Note results that were acknowledged; return how many the ledger has noted.

        What it does not take now is noted at the next call, with or without other ids.
        """
        self._acknowledged.update(job_ids)
        names, at = self._acknowledged, self._clock.now()
        if not names:
            return 0
        self._acknowledged = set()
        try:
            return await self._ledger.write(lambda c: records.acknowledge(c, self._by, names, at))
        except LedgerUnavailable as error:
            self._acknowledged |= names
            self._unwritten()
            _log.warning("acknowledgements_not_noted", results=len(names), reason=str(error))
            return 0

    async def _insist(self, event: str, job_id: str, transaction: Callable[[Connection], T]) -> T:
        """Run a transaction, again and again until the ledger takes it. One that is under way is not cancelled."""
        tries = 0
        while True:
            with trio.CancelScope(shield=True):
                try:
                    return await self._ledger.write(transaction)
                except LedgerUnavailable as error:
                    again_s = _AGAIN.delay_s(tries, 0.5)
                    _log.error(event, job_id=job_id, reason=str(error), again_s=again_s)
            self._unwritten()
            tries += 1
            await trio.sleep(again_s)
