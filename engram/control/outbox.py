"""Carries out operators' commands on the relay's dead letters, and in a process that has nothing else to command."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, assert_never, final

import trio
from sqlalchemy import Connection

from engram.clock import Clock
from engram.control import commands, rows
from engram.control.errors import CommandRefused
from engram.control.model import BackupMade, DeadLetterDetail, DeadLetterRow, Done
from engram.ledger import LEDGER_FILE, Ledger, LedgerError, backup
from engram.relay import NoSuchEntry, NotAbandoned, NotWaiting, records

DeadLetterCommand = (
    commands.ListDeadLetters
    | commands.ShowDeadLetter
    | commands.RetryDeadLetter
    | commands.DiscardDeadLetter
    | commands.ParkEntry
)
DEAD_LETTER_COMMANDS: Final = (
    commands.ListDeadLetters,
    commands.ShowDeadLetter,
    commands.RetryDeadLetter,
    commands.DiscardDeadLetter,
    commands.ParkEntry,
)


@final
class DeadLetters:
    """The dead letters of a running process."""

    def __init__(self, ledger: Ledger, clock: Clock, changed: Callable[[], None]) -> None:
        """Take `changed`, a hint to the emitter."""
        self._ledger = ledger
        self._clock = clock
        self._changed = changed

    async def carry_out(self, command: DeadLetterCommand) -> list[DeadLetterRow] | DeadLetterDetail | Done:
        """Return the answer. Raises CommandRefused, LedgerError."""
        now = self._clock.now()
        match command:
            case commands.ListDeadLetters(after=after, limit=limit):
                page = max(1, min(limit, commands.PAGE))
                found = await self._ledger.read(lambda c: records.dlq_list(c, page, after))
                return [rows.dead_letter_row(entry) for entry in found]
            case commands.ShowDeadLetter(id=entry_id):
                return await self._show(entry_id)
            case commands.RetryDeadLetter(id=entry_id):
                return await self._retry(entry_id)
            case commands.DiscardDeadLetter(id=entry_id):
                await self._write(lambda c: records.dlq_discard(c, entry_id, now))
                return Done(True, f"{entry_id} discarded")
            case commands.ParkEntry(id=waiting_id):
                await self._write(lambda c: records.dlq_park(c, waiting_id, now))
                return Done(True, f"{waiting_id} parked")
            case _:
                assert_never(command)

    async def _show(self, entry_id: int) -> DeadLetterDetail:
        try:
            entry, lines = await self._ledger.read(lambda c: records.dlq_show(c, entry_id))
        except NoSuchEntry as error:
            raise CommandRefused("not_found", str(error)) from None
        payload = entry.payload.decode("utf-8", "replace")
        return DeadLetterDetail(rows.dead_letter_row(entry), payload, [rows.attempt_row(line) for line in lines])

    async def _retry(self, entry_id: int | None) -> Done:
        now = self._clock.now()
        if entry_id is None:
            ids = await self._ledger.write(lambda c: records.dlq_retry_all(c, now))
            self._changed()
            return Done(bool(ids), f"{len(ids)} will be sent again" if ids else "nothing is abandoned")
        await self._write(lambda c: records.dlq_retry(c, entry_id, now))
        return Done(True, f"{entry_id} will be sent again")

    async def _write(self, transaction: Callable[[Connection], None]) -> None:
        try:
            await self._ledger.write(transaction)
        except NoSuchEntry as error:
            raise CommandRefused("not_found", str(error)) from None
        except (NotAbandoned, NotWaiting) as error:
            raise CommandRefused("conflict", str(error)) from None
        self._changed()


@final
class OutboxOperations:
    """What can be commanded of a validator: its dead letters, and a backup of its ledger."""

    def __init__(self, data_dir: str | Path, ledger: Ledger, clock: Clock, changed: Callable[[], None]) -> None:
        self._data_dir = Path(data_dir)
        self._dead_letters = DeadLetters(ledger, clock, changed)

    async def carry_out(self, line: bytes) -> object:
        """Return the answer to one command line. Raises CommandRefused, or msgspec.DecodeError for no command."""
        command = commands.decoder.decode(line)
        try:
            if isinstance(command, DEAD_LETTER_COMMANDS):
                return await self._dead_letters.carry_out(command)
            if isinstance(command, commands.BackupLedger):
                return await backed_up(self._data_dir, command.path)
        except LedgerError as error:
            raise CommandRefused("ledger", str(error)) from error
        known = "engram relay dlq, engram ledger backup"
        raise CommandRefused("not_here", f"no gateway runs in this process: it takes {known} alone")


async def backed_up(data_dir: Path, path: str) -> BackupMade:
    """Copy the ledger of the running process to `path`. Raises CommandRefused, LedgerError."""
    target = absolute(path)
    size = await trio.to_thread.run_sync(backup.backup, data_dir / LEDGER_FILE, target)
    return BackupMade(str(target), size)


def absolute(path: str) -> Path:
    """Return an absolute path that an operator named. Raises CommandRefused."""
    target = Path(path)
    if "\0" in path:
        raise CommandRefused("bad_command", "a path holds no NUL")
    if not target.is_absolute():
        raise CommandRefused("bad_path", f"{path!r} is not absolute: the running process has another working folder")
    return target
