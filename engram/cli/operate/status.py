"""`engram status`: the running process on one screen."""

from engram.cli import output
from engram.cli.operate.running import ask
from engram.cli.options import SHOW, SOURCES, Show, Sources
from engram.cli.output import Column, duration
from engram.control.commands import GetStatus
from engram.control.model import SystemStatus, TreeNode

_COLUMNS = (
    Column("part", "path"),
    Column("kind", "kind"),
    Column("state", "state"),
    Column("restarts", "restarts"),
    Column("mailbox", "mailbox_depth"),
    Column("last error", "last_error"),
)


def status(*, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """Show the status of the running process: counts, ages, and its supervision tree."""
    found = ask(sources, GetStatus())
    if show.json:
        output.document(found)
        return
    output.record(_facts(found), json=False)
    tree: list[TreeNode] = found.tree
    output.rows(tree, _COLUMNS, json=False)


def _facts(found: SystemStatus) -> dict[str, object]:
    return {
        "version": found.version,
        "environment": found.environment,
        "up": duration(found.uptime_s),
        "selling": "on" if found.selling else "off",
        "sessions": _counts(found.sessions),
        "payments": _counts(found.payments),
        "quarantined": ", ".join(found.quarantined) or "none",
        "ledger": f"{found.ledger_id} ({f'SQLite {found.sqlite}' if found.sqlite else 'PostgreSQL'})",
        **({"relay": _relay(found.extra["relay"])} if "relay" in found.extra else {}),
        **{f"age of {name}": duration(age_s) for name, age_s in found.ages_s.items()},
    }


def _relay(relay: dict[str, object]) -> str:
    return (
        f"{relay['outbox_pending']} waiting, {relay['dlq_abandoned']} abandoned, "
        f"{relay['not_queued']} never queued since the start"
    )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none"
