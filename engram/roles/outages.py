"""Jobs that outlast an outage of the ledger.

A child whose failures never end the process stays down for good once it has failed too often: a job that ends with each
outage of a ledger's server would need a restart of the process after one of eight minutes.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import structlog
import trio

from actors import Context, Job
from engram.ledger import LedgerError

AGAIN_S: Final = 10.0

_log = structlog.get_logger("engram")


def outlasting(name: str, run: Callable[[Context], Awaitable[None]]) -> Job:
    """Return the job that runs `run`, from its beginning again each time that the ledger has failed it."""

    async def through_outages(context: Context) -> None:
        while True:
            is_over = True
            try:
                await run(context)
            except* LedgerError as failed:
                _log.error("job_waits_for_the_ledger", job=name, reason=str(_first(failed)))
                is_over = False
            if is_over:
                return
            await trio.sleep(AGAIN_S)

    return Job(through_outages)


def _first(failed: BaseException) -> BaseException:
    while isinstance(failed, BaseExceptionGroup):
        failed = failed.exceptions[0]
    return failed
