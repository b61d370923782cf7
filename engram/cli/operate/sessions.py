"""`engram sessions`: list, show, stop, release."""

from collections.abc import Iterator
from typing import Annotated

from cyclopts import App, Parameter

from engram.cli import output
from engram.cli.operate.running import ask, done
from engram.cli.options import SHOW, SOURCES, Show, Sources
from engram.cli.output import Column, duration, moment, usd
from engram.control.commands import ListSessions, ReleaseSession, ShowSession, StopSession
from engram.control.model import SessionRow

app = App(name="sessions", help="Sessions of the running gateway.", help_epilogue="Example: `engram sessions list`")

_COLUMNS = (
    Column("session", "session_id"),
    Column("status", "status"),
    Column("tier", "tier"),
    Column("left", "remaining_s", duration),
    Column("paid USD", "amount_usd", usd),
    Column("hotkey", "controller_hotkey"),
    Column("node", "node_endpoint"),
    Column("ended", "end_reason"),
    Column("quarantined", "quarantined_at", moment),
)
SessionId = Annotated[str, Parameter(help="Its id, as `engram sessions list` shows it.")]
_FORMATS = {
    "created_at": moment,
    "expires_at": moment,
    "quarantined_at": moment,
    "remaining_s": duration,
    "amount_usd": usd,
}


@app.command(
    name="list", help_epilogue="Example: `engram sessions list --state active`, or `engram sessions list --json | jq`"
)
def list_sessions(
    *,
    state: Annotated[str, Parameter(help="Only those in this state.")] = "",
    sources: Sources = SOURCES,
    show: Show = SHOW,
) -> None:
    """List sessions, including those in quarantine."""
    output.rows(list(_all(sources, state)), _COLUMNS, json=show.json)


def _all(sources: Sources, state: str) -> Iterator[SessionRow]:
    after = ""
    while True:
        page = ask(sources, ListSessions(state=state, after=after))
        yield from page.rows
        if not page.after:
            return
        after = page.after


@app.command(name="show", help_epilogue="Example: `engram sessions show 0d7c…`")
def show_session(session_id: SessionId, *, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """Show a session, its history and its payments."""
    detail = ask(sources, ShowSession(session_id=session_id))
    if show.json:
        output.document(detail)
        return
    output.record(detail.session, _FORMATS, json=False)
    history = [
        [moment(event.at), output.printable(event.event), output.printable(_facts(event.data))]
        for event in detail.events
    ]
    output.table(history, ["at", "event", "facts"])
    output.table(
        [[payment.payment_id, payment.state, usd(payment.amount_usd)] for payment in detail.payments],
        ["payment", "state", "USD"],
    )


def _facts(data: dict[str, object]) -> str:
    return " ".join(f"{name}={value}" for name, value in data.items())


@app.command(name="stop", help_epilogue="Example: `engram sessions stop 0d7c…`")
def stop_session(session_id: SessionId, *, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """Stop a session permanently: its node and memory are destroyed."""
    done(ask(sources, StopSession(session_id=session_id)), f"{session_id} is stopping", json=show.json)


@app.command(name="release", help_epilogue="Example: `engram sessions release 0d7c…`")
def release_session(session_id: SessionId, *, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """Release a session from quarantine, so that it is worked on again."""
    done(ask(sources, ReleaseSession(session_id=session_id)), f"{session_id} is released", json=show.json)
