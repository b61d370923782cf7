"""Carries out operators' commands in the running gateway."""

from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol, TypeVar, assert_never, final

import trio
from sqlalchemy import Connection

from engram.clock import Clock
from engram.control import commands, rows
from engram.control.errors import CommandRefused
from engram.control.model import (
    Done,
    PaymentDetail,
    PaymentPage,
    SessionDetail,
    SessionPage,
    SystemStatus,
)
from engram.control.outbox import DeadLetters, absolute, backed_up
from engram.hints import Hints
from engram.hotkeys import HotkeyError, MalformedHotkey, opening, parse_hotkey, ss58, wallet
from engram.ledger import Ledger, LedgerError
from engram.payments import records as payment_records
from engram.payments import refunds
from engram.payments.model import Payment, PaymentState
from engram.provisioning import node_keys
from engram.provisioning.errors import NodeKeyError
from engram.sessions import EndReason, Instants, Session, SessionEvent, SessionState, history
from engram.sessions import records as session_records

MAX_EVENTS: Final = 1_000
"""Of a session's history, as shown."""
MAX_SIMULTANEOUS: Final = 2 * commands.PAGE
"""Payments read at a time, so that a page can end between two moments."""


class SellingSwitch(Protocol):
    """Whether anything is sold."""

    async def switch(self, *, on: bool) -> None:
        """Set it, durably."""
        ...


@final
class GatewayOperations:
    """Every command against the ledger and the hints of a running gateway."""

    def __init__(
        self,
        data_dir: str | Path,
        ledger: Ledger,
        clock: Clock,
        instants: Instants,
        selling: SellingSwitch,
        hints: Hints,
        status: Callable[[], Awaitable[SystemStatus]],
        password_of: Callable[[Path], str | None] = lambda key_file: None,
    ) -> None:
        """`password_of` gives the password of an encrypted hotkey of a node; it may block, and raises HotkeyError."""
        self._data_dir = Path(data_dir)
        self._ledger = ledger
        self._clock = clock
        self._instants = instants
        self._selling = selling
        self._hints = hints
        self._status = status
        self._password_of = password_of
        self._dead_letters = DeadLetters(ledger, clock, hints.outbox_changed)

    async def carry_out(self, line: bytes) -> object:
        """Return the answer to one command line. Raises Refused, or msgspec.DecodeError for no command."""
        command = commands.decoder.decode(line)
        try:
            return await self._carry_out(command)
        except LedgerError as error:
            raise CommandRefused("ledger", str(error)) from error

    async def _carry_out(self, command: commands.AnyCommand) -> object:
        match command:
            case commands.GetStatus():
                return await self._status()
            case commands.ListSessions():
                return await self._list_sessions(command)
            case commands.ShowSession(session_id=session_id):
                return await self._show_session(session_id)
            case commands.StopSession(session_id=session_id):
                return await self._stop_session(session_id)
            case commands.ReleaseSession(session_id=session_id):
                return await self._release_session(session_id)
            case commands.ListPayments():
                return await self._list_payments(command)
            case commands.ShowPayment(payment_id=payment_id):
                return await self._show_payment(payment_id)
            case commands.ReleasePayment(payment_id=payment_id):
                return await self._release_payment(payment_id)
            case commands.NoteRefund():
                return await self._note_refund(command)
            case commands.SetSelling(on=on):
                await self._selling.switch(on=on)
                return Done(True, "selling" if on else "not selling; running sessions go on")
            case commands.BackupLedger(path=path):
                return await backed_up(self._data_dir, path)
            case (
                commands.ListDeadLetters()
                | commands.ShowDeadLetter()
                | commands.RetryDeadLetter()
                | commands.DiscardDeadLetter()
                | commands.ParkEntry()
            ):
                return await self._dead_letters.carry_out(command)
            case commands.ListNodeKeys():
                pool, keys = self._data_dir / node_keys.FOLDER, await self._ledger.read(node_keys.list_keys)
                return [rows.node_key_row(key, node_keys.file_of(key, pool)) for key in keys]
            case commands.AddNodeKey(path=path):
                return await self._add_node_key(path)
            case commands.RetireNodeKey(hotkey=hotkey):
                return await self._retire_node_key(hotkey)
            case _:
                assert_never(command)

    async def _list_sessions(self, command: commands.ListSessions) -> SessionPage:
        states = set(SessionState) if not command.state else {_state(SessionState, command.state)}
        limit = _bounded(command.limit)
        found = await self._ledger.read(
            lambda connection: session_records.list_in_states(connection, states, limit, command.after)
        )
        now = self._instants.now()
        return SessionPage([rows.session_row(session, now) for session in found], _next(found, limit))

    async def _show_session(self, session_id: str) -> SessionDetail:
        def query(connection: Connection) -> SessionDetail | None:
            session = session_records.get(connection, session_id)
            if session is None:
                return None
            return SessionDetail(
                rows.session_row(session, self._instants.now()),
                [rows.event_row(e) for e in history.events_since(connection, session_id, 0, MAX_EVENTS)],
                [rows.payment_row(payment) for payment in payment_records.of_session(connection, session_id)],
            )

        found = await self._ledger.read(query)
        if found is None:
            raise _no_such("session", session_id)
        return found

    async def _stop_session(self, session_id: str) -> Done:
        now = self._instants.now()

        def transaction(connection: Connection) -> tuple[Session | None, Session | None]:
            before = session_records.get(connection, session_id)
            after = session_records.transition(connection, session_id, SessionEvent.END, now, reason=EndReason.OPERATOR)
            return before, after

        before, after = await self._ledger.write(transaction)
        if before is None:
            raise _no_such("session", session_id)
        self._hints.session_changed(session_id)
        return Done(after is not None, f"{session_id} is {(after or before).state}")

    async def _release_session(self, session_id: str) -> Done:
        session = await self._ledger.read(lambda connection: session_records.get(connection, session_id))
        if session is None:
            raise _no_such("session", session_id)
        await self._ledger.write(lambda connection: session_records.release_quarantine(connection, session_id))
        self._hints.session_changed(session_id)
        return Done(session.quarantined_at is not None, f"{session_id} is worked on")

    async def _list_payments(self, command: commands.ListPayments) -> PaymentPage:
        state = None if not command.state else _state(PaymentState, command.state)
        limit = _bounded(command.limit)
        found = await self._ledger.read(
            lambda connection: payment_records.list_payments(
                connection, state=state, limit=MAX_SIMULTANEOUS, before=command.before
            )
        )
        shown = _whole_moments(found, limit)
        complete = len(shown) == len(found) < MAX_SIMULTANEOUS
        more = None if complete else shown[-1].created_at
        return PaymentPage([rows.payment_row(payment) for payment in shown], more)

    async def _show_payment(self, payment_id: str) -> PaymentDetail:
        def query(connection: Connection) -> PaymentDetail | None:
            payment = payment_records.get(connection, payment_id)
            if payment is None:
                return None
            refunds = payment_records.refunds_of(connection, payment_id)
            return PaymentDetail(rows.payment_row(payment), [rows.refund_row(refund) for refund in refunds])

        found = await self._ledger.read(query)
        if found is None:
            raise _no_such("payment", payment_id)
        return found

    async def _release_payment(self, payment_id: str) -> Done:
        now = self._clock.now()
        released = await self._ledger.write(
            lambda connection: payment_records.release_quarantine(connection, payment_id, now)
        )
        if released is None:
            raise _no_such("payment", payment_id)
        self._hints.payments_changed()
        return Done(True, f"{payment_id} is worked on")

    async def _note_refund(self, command: commands.NoteRefund) -> Done:
        payment_id, number, now = command.payment_id, command.number, self._instants.now()
        noted = await self._ledger.write(
            lambda connection: refunds.sent_by_hand(connection, payment_id, number, command.transaction.lower(), now)
        )
        if not noted:
            raise CommandRefused(
                "not_due",
                f"payment {payment_id} has no part {number} that is due: see `engram payments show {payment_id}`"
                " (a part that is `refunding` is signed already and sent by the gateway)",
            )
        self._hints.payments_changed()
        return Done(True, f"part {number} of {payment_id} is paid back")

    async def _add_node_key(self, path: str) -> Done:
        file, at = absolute(path), self._clock.now()
        try:
            if file.exists() and not wallet.is_private(file):
                raise CommandRefused("not_private", f"{file} may be read by others: chmod 600 it first")
            password = await trio.to_thread.run_sync(self._password_of, file)
            if password is None:
                public_key = (await trio.to_thread.run_sync(wallet.read_private_hotkey_file, file)).public_key
            else:
                public_key = await opening.public_key_of(file, password)
            await self._ledger.write(lambda c: node_keys.add(c, public_key, file, "added", at))
        except (HotkeyError, NodeKeyError, OSError) as error:
            raise CommandRefused("bad_key", str(error)) from None
        return Done(True, f"{ss58.encode(public_key)} is in the pool")

    async def _retire_node_key(self, hotkey: str) -> Done:
        at = self._clock.now()
        try:
            public_key = parse_hotkey(hotkey)
            key = await self._ledger.write(lambda c: node_keys.retire(c, public_key, at))
        except MalformedHotkey as error:
            raise CommandRefused("bad_key", f"{hotkey!r} is no hotkey of the pool: {error}") from None
        except NodeKeyError as error:
            raise CommandRefused("bad_key", str(error)) from None
        leased = f"; session {key.session_id} keeps it to its end" if key.session_id else ""
        return Done(True, f"{hotkey} is retired{leased}")


def _bounded(limit: int) -> int:
    return max(1, min(limit, commands.PAGE))


def _next(page: list[Session], limit: int) -> str:
    return page[-1].id if len(page) == limit else ""


S = TypeVar("S", bound=StrEnum)


def _whole_moments(found: list[Payment], limit: int) -> list[Payment]:
    """Return the first `limit` payments and those made at the very moment of the last of them.

    A page that begins before that moment then leaves none out.
    """
    end = limit
    while 0 < end < len(found) and found[end].created_at == found[end - 1].created_at:
        end += 1
    return found[:end]


def _state(states: type[S], name: str) -> S:
    try:
        return states(name)
    except ValueError:
        known = ", ".join(state.value for state in states)
        raise CommandRefused("bad_state", f"there is no state {name!r}; there are {known}") from None


def _no_such(kind: str, identifier: str) -> CommandRefused:
    return CommandRefused("not_found", f"there is no {kind} {identifier}")
