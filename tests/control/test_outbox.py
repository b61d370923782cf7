"""What an operator can command of a validator: its dead letters, and a backup."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engram.clock import ManualClock
from engram.control import Command, CommandRefused
from engram.control import commands as cmd
from engram.control.outbox import OutboxOperations
from engram.control.protocol import encode_command
from engram.ledger import LEDGER_FILE, InlineLedger, open_inline
from engram.relay import records
from engram.relay.model import Answered, EntryState
from engram.relay.rules import Decision
from tests.relay.samples import KEYRING, NOW, queue


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[InlineLedger]:
    ledger = open_inline(tmp_path / LEDGER_FILE)
    queue(ledger, 1)
    (entry,) = ledger.write_now(lambda c: records.claim(c, NOW, KEYRING.sign))
    parked = Decision(EntryState.ABANDONED, 1, NOW, "the receiver answered 400")
    ledger.write_now(lambda c: records.settle(c, entry, Answered(400), parked, NOW))
    yield ledger
    ledger.close()


async def test_dead_letters_of_a_validator_are_listed_retried_and_discarded(
    ledger: InlineLedger, tmp_path: Path
) -> None:
    hints: list[str] = []
    operations = OutboxOperations(tmp_path, ledger, ManualClock(NOW), lambda: hints.append("changed"))

    async def ask(command: Command[Any]) -> Any:
        return await operations.carry_out(encode_command(command))

    assert [row.state for row in await ask(cmd.ListDeadLetters())] == ["abandoned"]
    assert (await ask(cmd.ShowDeadLetter(id=1))).entry.last_reason == "the receiver answered 400"
    assert (await ask(cmd.RetryDeadLetter(id=1))).message == "1 will be sent again"
    assert hints == ["changed"]
    assert ledger.write_now(records.heads)[0].id == 1
    with pytest.raises(CommandRefused, match="pending"):
        await ask(cmd.DiscardDeadLetter(id=1))
    with pytest.raises(CommandRefused, match="99"):
        await ask(cmd.ShowDeadLetter(id=99))
    assert (await ask(cmd.ParkEntry(id=1))).message == "1 parked"
    assert [(each.kind, each.id) for each in ledger.write_now(records.heads)] == [("gap", 2)]
    with pytest.raises(CommandRefused, match="1 is abandoned, not pending"):
        await ask(cmd.ParkEntry(id=1))
    made = await ask(cmd.BackupLedger(path=str(tmp_path / "copy")))
    assert Path(made.path).stat().st_size == made.bytes
    with pytest.raises(CommandRefused, match="no gateway runs in this process: it takes engram relay dlq"):
        await ask(cmd.ListSessions())
