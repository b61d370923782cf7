"""`engram relay`: how it stands, its log and streams, read from the ledger; and the entries that it abandoned."""

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

import msgspec
from cyclopts import App, Parameter
from sqlalchemy import Connection

from config.model import RelaySettings
from engram.cli import output
from engram.cli.at_rest import read_in_use
from engram.cli.failures import CommandFailed, Exit
from engram.cli.numbers import whole
from engram.cli.operate.running import ask, done
from engram.cli.options import SHOW, SOURCES, Show, Sources
from engram.cli.output import Column, moment
from engram.control.commands import DiscardDeadLetter, ListDeadLetters, ParkEntry, RetryDeadLetter, ShowDeadLetter
from engram.control.model import DeadLetterRow
from engram.relay import records
from engram.relay.quorum import evidence as refusals
from engram.relay.quorum import records as quorum
from engram.xeris import submissions

T = TypeVar("T")
R = TypeVar("R", bound=msgspec.Struct)

app = App(name="relay", help="What is relayed to another network.", help_epilogue="Example: `engram relay dlq list`")
dlq = App(name="dlq", help="Entries that the relay abandoned.", help_epilogue="Example: `engram relay dlq list`")
app.command(dlq)

_COLUMNS = (
    Column("id", "id"),
    Column("kind", "kind"),
    Column("block", "block"),
    Column("state", "state"),
    Column("attempts", "attempts"),
    Column("created", "created_at", moment),
    Column("last reason", "last_reason"),
)
_LINES = (
    Column("at", "at", moment),
    Column("entry", "entry_id"),
    Column("block", "block"),
    Column("status", "status"),
    Column("output hash", "output_hash"),
    Column("anchor", "anchor"),
)
_SUBMISSIONS = (
    Column("at", "at", moment),
    Column("verdict", "verdict"),
    Column("kind", "kind"),
    Column("block", "block"),
    Column("signer", "signer"),
    Column("reason", "reason"),
)
_STREAMS = (
    Column("stream", "id"),
    Column("subnet", "netuid"),
    Column("kind", "kind"),
    Column("waiting", "pending"),
    Column("parked", "parked"),
    Column("next try", "next_attempt_at", moment),
    Column("last delivered", "last_ok_at", moment),
)
_EVIDENCE = (
    Column("at", "at", moment),
    Column("proposer", "proposer"),
    Column("refused by", "judge"),
    Column("kind", "kind"),
    Column("block", "block"),
    Column("verdict", "verdict"),
    Column("reason", "reason"),
)
_CANDIDATES = (
    Column("kind", "kind"),
    Column("epoch", "epoch"),
    Column("block", "block"),
    Column("state", "state"),
    Column("output hash", "output_hash"),
    Column("signers", "signers"),
    Column("reason", "reason"),
    Column("updated", "updated_at", moment),
)
_BUNDLES = (
    Column("kind", "kind"),
    Column("epoch", "epoch"),
    Column("block", "block"),
    Column("proposer", "proposer"),
    Column("signers", "signers"),
    Column("output hash", "output_hash"),
    Column("at", "at", moment),
)
Last = Annotated[int, Parameter(converter=whole, help="How many rows, the newest first.")]
Number = Annotated[int, Parameter(converter=whole, help="Its id, as `engram relay dlq list` shows it.")]
Waiting = Annotated[int, Parameter(converter=whole, help="Its id, as `engram relay log` shows it.")]
_OF_THE_PROCESS = ("not_queued", "held_back", "acknowledged_by")
_FORMATS = {"created_at": moment, "updated_at": moment, "next_attempt_at": moment}


@app.command(help_epilogue="Example: `engram relay status --json`")
def status(*, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """Show how the relay stands by its ledger: what waits and why, what was delivered, what was abandoned.

    What the process alone knows, such as why its receiver is held back, is in GET /relay/status of its operations port.
    """
    settings = sources.load().settings
    found = read_in_use(settings, lambda c: _standing(c, settings.relay))
    output.record(found, {"last_ok_at": moment, "oldest_pending_at": moment}, json=show.json)


def _standing(connection: Connection, relay: RelaySettings) -> dict[str, object]:
    standing = records.status(
        connection,
        enabled=bool(relay.url),
        failures_in_a_row=records.failures_in_a_row(connection),
        receiver_pinned=bool(relay.receiver_key),
    )
    found = msgspec.structs.asdict(standing)
    waits = [entry.last_reason for entry in records.heads(connection) if entry.last_reason is not None]
    known: dict[str, object] = {name: value for name, value in found.items() if name not in _OF_THE_PROCESS}
    return known | {"last_failure": waits[0] if waits else ""}


@app.command(name="log", help_epilogue="Example: `engram relay log --last 100`")
def show_log(
    *,
    last: Last = 50,
    received: Annotated[
        bool, Parameter(negative="", help="What this receiver was sent (`xeris`), refused submissions too.")
    ] = False,
    sources: Sources = SOURCES,
    show: Show = SHOW,
) -> None:
    """List the newest attempts to deliver a payload, or the newest submissions to a receiver."""
    if received:
        _list(sources, show, lambda c: submissions.newest(c, last), _SUBMISSIONS)
    else:
        _list(sources, show, lambda c: records.log_lines(c, last), _LINES)


@app.command(help_epilogue="Example: `engram relay streams`")
def streams(*, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """List the streams: what waits and what is parked in each, and when its next payload is tried."""
    _list(sources, show, records.streams, _STREAMS)


@app.command(help_epilogue="Example: `engram relay evidence --last 20 --json`")
def evidence(*, last: Last = 50, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """List proposals that a validator refused to sign: whose, who refused, and why.

    As JSON each has the values that differ, and the payload as its proposer signed it.
    """
    _list(sources, show, lambda c: refusals.newest(c, last), _EVIDENCE)


@app.command(help_epilogue="Example: `engram relay proposals`")
def proposals(*, last: Last = 20, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """List this validator's own scores and rankings by epoch: whether they were proposed, and how many have signed."""
    _list(sources, show, lambda c: quorum.summaries(c, last), _CANDIDATES)


@app.command(help_epilogue="Example: `engram relay bundles`")
def bundles(*, last: Last = 20, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """List the scores and rankings that left with enough signatures, whoever proposed them."""
    _list(sources, show, lambda c: quorum.bundles(c, last), _BUNDLES)


def _list(sources: Sources, show: Show, query: Callable[[Connection], Sequence[R]], columns: Sequence[Column]) -> None:
    """Show rows of the ledger. Raises CommandFailed where there is none."""
    output.rows(read_in_use(sources.load().settings, query), columns, json=show.json)


@dlq.command(name="list", help_epilogue="Example: `engram relay dlq list`")
def list_letters(*, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """List abandoned entries, the oldest first."""
    letters: list[DeadLetterRow] = []
    while page := ask(sources, ListDeadLetters(after=letters[-1].id if letters else 0)):
        letters += page
    output.rows(letters, _COLUMNS, json=show.json)


@dlq.command(name="show", help_epilogue="Example: `engram relay dlq show 12`")
def show_letter(number: Number, *, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """Show an entry and its attempts."""
    detail = ask(sources, ShowDeadLetter(id=number))
    if show.json:
        output.document(detail)
        return
    output.record(detail.entry, _FORMATS, json=False)
    output.rows(
        detail.attempts,
        (Column("at", "at", moment), Column("status", "status"), Column("HTTP", "http_status")),
        json=False,
    )


@dlq.command(name="retry", help_epilogue="Example: `engram relay dlq retry 12`, or `engram relay dlq retry --all`")
def retry_letter(
    number: Number | None = None,
    /,
    *,
    every: Annotated[bool, Parameter(name="--all", help="Every abandoned entry.", negative="")] = False,
    sources: Sources = SOURCES,
    show: Show = SHOW,
) -> None:
    """Send an abandoned entry again."""
    if every == (number is not None):
        raise CommandFailed("name one entry by its number, or --all", Exit.USAGE)
    done(ask(sources, RetryDeadLetter(id=number)), "will be sent again", json=show.json)


@dlq.command(name="discard", help_epilogue="Example: `engram relay dlq discard 12`")
def discard_letter(number: Number, *, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """Discard an abandoned entry permanently."""
    done(ask(sources, DiscardDeadLetter(id=number)), f"{number} is discarded", json=show.json)


@dlq.command(name="park", help_epilogue="Example: `engram relay dlq park 12`")
def park_entry(number: Waiting, *, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """Park an entry that waits, so that its stream goes on without it; `retry` sends it again."""
    done(ask(sources, ParkEntry(id=number)), f"{number} is parked", json=show.json)
