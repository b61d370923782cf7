"""Escrow: deposits that are paid out block by block.

An account is settled only when it is touched: what is owed since `settled_at` then moves from its deposits, oldest
first, to the payments. What it cannot pay makes it overdrawn: its funds go below zero, its payments keep the debt as
`unsettled`, and its deployment is closed.
"""

from msgspec.structs import replace

from tests.doubles.akash import bank
from tests.doubles.akash.errors import (
    ACCOUNT_CLOSED,
    ACCOUNT_EXISTS,
    ACCOUNT_NOT_FOUND,
    ACCOUNT_OVERDRAWN,
    MARKET_DEPOSIT,
    PAYMENT_CLOSED,
    PAYMENT_EXISTS,
    PAYMENT_NOT_FOUND,
    PAYMENT_RATE_ZERO,
    Wrapped,
)
from tests.doubles.akash.messages import Deposit
from tests.doubles.akash.store import ONE, UACT, DepositRow, EscrowRow, PaymentRow, State

BALANCE = 1
"""The source of a deposit: the owner's own balance (2 is a grant, of which this chain has none)."""


def authorize(state: State, owner: str, deposit: Deposit) -> tuple[DepositRow, ...]:
    """Return what the sources can give. Raises Refused when it is less than the deposit."""
    assert deposit.amount is not None
    denom, wanted = deposit.amount.denom, int(deposit.amount.amount)
    available = bank.balance(state, owner, denom) if BALANCE in deposit.sources else 0
    if available < wanted:
        raise Wrapped(MARKET_DEPOSIT, "insufficient balance")
    return (DepositRow(owner, state.height, denom, wanted * ONE),)


def create(state: State, scope: str, xid: str, owner: str, deposits: tuple[DepositRow, ...]) -> None:
    """Open an account with its first deposits. Raises Refused."""
    if state.escrow.get((scope, xid)) is not None:
        raise ACCOUNT_EXISTS.error()
    zero = tuple((denom, 0) for denom in dict.fromkeys(row.denom for row in deposits))
    row = EscrowRow(scope, xid, owner, state.height, transferred=zero, funds=zero)
    state.escrow.put((scope, xid), _fetched(state, row, deposits))


def deposit(state: State, scope: str, xid: str, deposits: tuple[DepositRow, ...]) -> None:
    """Add to an account. Raises Refused for one that is closed; one that is overdrawn pays its debt and is closed."""
    row = _account(state, scope, xid)
    if row.state == "closed":
        raise ACCOUNT_CLOSED.error()
    row = _fetched(state, row, deposits)
    if row.state != "overdrawn":
        state.escrow.put((scope, xid), row)
        return
    row, payments, overdrawn = _settled(state, row)
    _save(state, row if overdrawn else replace(row, state="closed"), [_withdrawn(state, each) for each in payments])


def close(state: State, scope: str, xid: str) -> None:
    """Settle, pay out, give the rest back to the depositors. Raises Refused for an account that is closed."""
    row = _account(state, scope, xid)
    if row.state == "closed":
        raise ACCOUNT_CLOSED.error()
    row, payments, _ = _settled(state, row)
    closed = [replace(each, state="closed") if each.state == "open" else each for each in payments]
    if row.state == "open":
        row = replace(row, state="closed")
        settled = {each.xid for each in closed}
        closed += [
            replace(each, state="closed")
            for each in _payments(state, row)
            if each.state == "open" and each.xid not in settled
        ]
    _save(state, row, [_withdrawn(state, each) for each in closed])


def create_payment(state: State, aid: str, xid: str, owner: str, rate: int) -> None:
    """Begin to pay `rate` (dec) a block. Raises Refused."""
    row, payments, overdrawn = _settled(state, _account(state, "deployment", aid))
    if overdrawn:
        _save(state, row, payments)
        raise ACCOUNT_OVERDRAWN.error()
    if rate == 0:
        raise PAYMENT_RATE_ZERO.error()
    if state.payments.get((aid, xid)) is not None:
        raise PAYMENT_EXISTS.error()
    _save(state, row, payments)
    state.payments.put((aid, xid), PaymentRow(aid, xid, owner, rate))
    state.payments_of.add(aid, (aid, xid))


def withdraw(state: State, aid: str, xid: str) -> None:
    """Pay out what a payment has earned: how a provider finds out that nothing is left. Raises Refused."""
    payment = state.payments.get((aid, xid))
    if payment is None:
        raise PAYMENT_NOT_FOUND.error()
    if payment.state != "open":
        raise PAYMENT_CLOSED.error()
    row, payments, _ = _settled(state, _account(state, "deployment", aid))
    _save(state, row, [_withdrawn(state, each) if each.xid == xid else each for each in payments])


def close_payment(state: State, aid: str, xid: str) -> None:
    """End a payment and pay it out. Raises Refused."""
    payment = state.payments.get((aid, xid))
    if payment is None:
        raise PAYMENT_NOT_FOUND.error()
    if payment.state == "closed":
        raise PAYMENT_CLOSED.error()
    row, payments, _ = _settled(state, _account(state, "deployment", aid))
    if xid not in {each.xid for each in payments}:
        payments = [*payments, payment]
    ended = [
        _withdrawn(state, replace(each, state="closed") if each.state == "open" else each) if each.xid == xid else each
        for each in payments
    ]
    _save(state, row, ended)


def owed(state: State, row: EscrowRow) -> int:
    """Return what is owed at this height beyond what was settled (dec)."""
    blocks = state.height - row.settled_at if row.state == "open" else 0
    return sum(each.rate * blocks // ONE * ONE for each in _payments(state, row) if each.state == "open")


def _account(state: State, scope: str, xid: str) -> EscrowRow:
    row = state.escrow.get((scope, xid))
    if row is None:
        raise ACCOUNT_NOT_FOUND.error()
    return row


def _payments(state: State, row: EscrowRow) -> list[PaymentRow]:
    return state.payments.those(state.payments_of.of(row.xid)) if row.scope == "deployment" else []


def _fetched(state: State, row: EscrowRow, deposits: tuple[DepositRow, ...]) -> EscrowRow:
    funds, transferred = dict(row.funds), dict(row.transferred)
    for each in deposits:
        bank.send(state, each.owner, bank.ESCROW, each.denom, each.balance // ONE)
        funds[each.denom] = max(funds.get(each.denom, 0), 0) + each.balance
        transferred.setdefault(each.denom, 0)
    return replace(
        row, funds=tuple(funds.items()), transferred=tuple(transferred.items()), deposits=(*row.deposits, *deposits)
    )


def _settled(state: State, row: EscrowRow) -> tuple[EscrowRow, list[PaymentRow], bool]:
    """Return the account, those of its payments that changed, and whether it is overdrawn now."""
    if row.state == "closed":
        raise ACCOUNT_CLOSED.error()
    if any(amount < 0 for _, amount in row.funds):
        return row, [], True
    blocks = 0
    if row.state == "open":
        blocks, row = state.height - row.settled_at, replace(row, settled_at=state.height)
    states = ("overdrawn", "open") if blocks else ("overdrawn",)
    payments, overdrawn = [], False
    for payment in _payments(state, row):
        if payment.state not in states:
            continue
        was_overdrawn = payment.state == "overdrawn"
        due = payment.unsettled if was_overdrawn else payment.rate * blocks // ONE * ONE
        row, paid = _deducted(row, due)
        overdrawn = overdrawn or paid < due
        payments.append(
            replace(
                payment,
                state="open" if paid == due else "overdrawn",
                balance=payment.balance + paid,
                unsettled=due - paid + (0 if was_overdrawn else payment.unsettled),
            )
        )
    if overdrawn:
        row = replace(row, state="overdrawn")
        payments = [_withdrawn(state, replace(payment, state="overdrawn")) for payment in payments]
    return row, payments, overdrawn


def _deducted(row: EscrowRow, due: int) -> tuple[EscrowRow, int]:
    """Take what is due from the deposits, oldest first; what is missing makes the funds negative."""
    remaining, deposits = due, []
    for each in row.deposits:
        taken = min(each.balance, remaining) if each.denom == UACT else 0
        remaining -= taken
        if each.balance > taken:
            deposits.append(replace(each, balance=each.balance - taken))
    paid = due - remaining
    return (
        replace(
            row,
            deposits=tuple(deposits),
            funds=tuple((denom, amount - due if denom == UACT else amount) for denom, amount in row.funds),
            transferred=tuple((denom, amount + paid if denom == UACT else amount) for denom, amount in row.transferred),
        ),
        paid,
    )


def _withdrawn(state: State, payment: PaymentRow) -> PaymentRow:
    whole = payment.balance // ONE
    if whole == 0:
        return payment
    bank.send(state, bank.ESCROW, payment.owner, UACT, whole)
    return replace(payment, balance=payment.balance - whole * ONE, withdrawn=payment.withdrawn + whole * ONE)


def _save(state: State, row: EscrowRow, payments: list[PaymentRow]) -> None:
    ended = row.state in ("closed", "overdrawn")
    if ended:
        funds = dict(row.funds)
        for each in row.deposits:
            bank.send(state, bank.ESCROW, each.owner, each.denom, each.balance // ONE)
            funds[each.denom] -= each.balance // ONE * ONE
        row = replace(row, deposits=(), funds=tuple(funds.items()))
    state.escrow.put((row.scope, row.xid), row)
    for payment in payments:
        state.payments.put((payment.aid, payment.xid), payment)
    if ended:
        state.on_account_closed(row)
    for payment in payments:
        if payment.state in ("closed", "overdrawn"):
            state.on_payment_closed(payment)
