"""The jobs as the ledger has them. Whatever keeps the ledger from reading or writing them becomes `JobsUnavailable`."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, final

import msgspec
import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from actors import ActorDown, ActorsError, CallTimeout
from engram.ledger import CommitUnknown, Ledger, LedgerError

T = TypeVar("T")
Work = Callable[[Connection], T]

_FAULTS: Final = (LedgerError, ActorsError, SQLAlchemyError, msgspec.ValidationError)
"""The ledger's own errors, those of its actor, a table that is not as it should be, and a row that is not."""

_log = structlog.get_logger("engram.proxy")


@final
class JobsUnavailable(Exception):
    """The ledger did not read or write. With `may_be_done` a write may have taken effect, or may still do so."""

    def __init__(self, message: str, *, may_be_done: bool) -> None:
        super().__init__(message)
        self.may_be_done = may_be_done


@final
class JobStore:
    """Reads and writes jobs; `problem` says why the last attempt failed, and is empty when it did not."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.problem = ""

    async def write(self, transaction: Work[T]) -> T:
        """Run a transaction. Raises JobsUnavailable."""
        return await self._done(self._ledger.write, transaction)

    async def read(self, query: Work[T]) -> T:
        """Run a query. Raises JobsUnavailable."""
        return await self._done(self._ledger.read, query)

    async def _done(
        self, run: Callable[[Callable[[Connection], T]], Awaitable[T]], work: Callable[[Connection], T]
    ) -> T:
        try:
            value = await run(work)
        except _FAULTS as error:
            problem = _in_words(error)
            if not self.problem:
                _log.error("jobs_unavailable", error=problem)
            self.problem = problem
            raise JobsUnavailable(problem, may_be_done=_may_be_done(error)) from error
        if self.problem:
            self.problem = ""
            _log.info("jobs_available_again")
        return value


def _may_be_done(error: Exception) -> bool:
    match error:
        case ActorDown() | CallTimeout():
            return error.taken
        case _:
            return isinstance(error, CommitUnknown)


def _in_words(error: Exception) -> str:
    match error:
        case msgspec.ValidationError():  # its text quotes what was stored
            return "a job in the ledger is not as it was written"
        case SQLAlchemyError():
            return str(getattr(error, "orig", None) or error)
        case _:
            return str(error)
