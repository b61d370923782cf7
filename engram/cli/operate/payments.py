"""`engram payments`: list, show, export, release, refunded."""

import csv
import re
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from engram.cli import output
from engram.cli.failures import CommandFailed, Exit
from engram.cli.numbers import whole
from engram.cli.operate.running import ask, done
from engram.cli.options import SHOW, SOURCES, Show, Sources
from engram.cli.output import Column, moment, usd
from engram.control.commands import ListPayments, NoteRefund, ReleasePayment, ShowPayment
from engram.control.model import PaymentRow

app = App(name="payments", help="Payments of the running gateway.", help_epilogue="Example: `engram payments list`")

_COLUMNS = (
    Column("payment", "payment_id"),
    Column("state", "state"),
    Column("kind", "kind"),
    Column("USD", "amount_usd", usd),
    Column("payer", "payer"),
    Column("session", "session_id"),
    Column("created", "created_at", moment),
    Column("transaction", "transaction"),
    Column("reason", "reason"),
    Column("quarantined", "quarantined_at", moment),
)
_TRANSACTION = re.compile(r"0x[0-9a-fA-F]{64}")
PaymentId = Annotated[str, Parameter(help="Its id, as `engram payments list` shows it.")]
_FORMATS = {"created_at": moment, "settled_at": moment, "quarantined_at": moment, "amount_usd": usd}


@app.command(name="list", help_epilogue="Example: `engram payments list --state unknown`")
def list_payments(
    *,
    state: Annotated[str, Parameter(help="Only those in this state.")] = "",
    sources: Sources = SOURCES,
    show: Show = SHOW,
) -> None:
    """List payments, the newest first."""
    output.rows(list(_all(sources, state)), _COLUMNS, json=show.json)


def _all(sources: Sources, state: str) -> Iterator[PaymentRow]:
    before = None
    while True:
        page = ask(sources, ListPayments(state=state, before=before))
        yield from page.rows
        if page.before is None:
            return
        before = page.before


@app.command(name="show", help_epilogue="Example: `engram payments show 4f1a…`")
def show_payment(payment_id: PaymentId, *, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """Show a payment and its refunds."""
    detail = ask(sources, ShowPayment(payment_id=payment_id))
    if show.json:
        output.document(detail)
        return
    output.record(detail.payment, _FORMATS, json=False)
    for refund in detail.refunds:
        output.record(refund, {"amount_usd": usd}, json=False)


@app.command(name="export", help_epilogue="Example: `engram payments export --csv > payments.csv`")
def export_payments(
    *,
    csv: Annotated[
        bool, Parameter(help="Write comma-separated values with a heading instead of JSON.", negative="")
    ] = False,
    state: Annotated[str, Parameter(help="Only those in this state.")] = "",
    sources: Sources = SOURCES,
) -> None:
    """Export every payment for accounting, newest first."""
    payments = list(_all(sources, state))
    if csv:
        _write_csv(payments)
    else:
        output.document(payments)


def _write_csv(payments: list[PaymentRow]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(PaymentRow.__struct_fields__)
    for payment in payments:
        values: dict[str, Any] = msgspec.structs.asdict(payment)
        for name in ("created_at", "settled_at", "quarantined_at"):
            values[name] = moment(values[name])
        writer.writerow([_harmless(values[name]) for name in PaymentRow.__struct_fields__])


def _harmless(value: object) -> object:
    """Quote text that a spreadsheet would run as a formula: clients write some of it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


@app.command(name="release", help_epilogue="Example: `engram payments release 4f1a…`")
def release_payment(payment_id: PaymentId, *, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """Release a payment from quarantine, so that it is worked on again."""
    done(ask(sources, ReleasePayment(payment_id=payment_id)), f"{payment_id} is released", json=show.json)


@app.command(name="refunded", help_epilogue="Example: `engram payments refunded 4f1a… --part 1 --transaction 0x9c…`")
def note_refund(
    payment_id: PaymentId,
    *,
    part: Annotated[int, Parameter(converter=whole, help="Number of the refund, as `engram payments show` shows it.")],
    transaction: Annotated[str, Parameter(help="Hash of the transaction that paid it: 0x and 64 hex digits.")],
    sources: Sources = SOURCES,
    show: Show = SHOW,
) -> None:
    """Record a refund that you sent by hand, so that the gateway never sends it."""
    if _TRANSACTION.fullmatch(transaction) is None:
        raise CommandFailed(f"--transaction {transaction} is not 0x and 64 hex digits", Exit.USAGE)
    if part < 1:
        raise CommandFailed(f"--part {part} is not the number of a refund; they begin at 1", Exit.USAGE)
    noted = ask(sources, NoteRefund(payment_id=payment_id, number=part, transaction=transaction))
    done(noted, f"part {part} of {payment_id} is recorded as paid back", json=show.json)
