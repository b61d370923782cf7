"""`engram worker`: what a worker is doing, and the jobs that it keeps, read from its ledger and its listener."""

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
import trio
from cyclopts import App, Parameter

from config.model import Settings
from engram import wire
from engram.cli import output
from engram.cli.at_rest import read_in_use
from engram.cli.failures import CommandFailed, Exit
from engram.cli.numbers import whole
from engram.cli.options import SHOW, SOURCES, Show, Sources
from engram.cli.output import Column, moment
from engram.http.client import HttpClient
from engram.http.errors import HttpError
from engram.worker import records
from engram.worker.link import LinkStatus
from engram.worker.model import JobCounts, ListedJob

ASK_S: Final = 3.0

app = App(
    name="worker",
    help="What a worker is doing, and the jobs that it keeps.",
    help_epilogue="Example: `engram worker status`",
)

_JOBS: Final = (
    Column("id", "id"),
    Column("type", "type"),
    Column("state", "state"),
    Column("outcome", "outcome"),
    Column("result bytes", "result_bytes"),
    Column("accepted", "created_at", moment),
    Column("ended", "ended_at", moment),
    Column("acknowledged", "acknowledged_at", moment),
)


class _Running(msgspec.Struct, frozen=True):
    hotkey: str
    link: LinkStatus


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `engram worker status` shows."""

    orchestrator: str
    running: bool
    hotkey: str = ""
    connection: str = ""
    """The phase of the connection to the orchestrator."""
    since: float | None = None
    connections: int = 0
    last_loss: str = ""
    jobs: JobCounts


@app.command(help_epilogue="Example: `engram worker status --json`")
def status(
    *,
    sources: Sources = SOURCES,
    ops_port: Annotated[
        int | None, Parameter(converter=whole, help="Port of the running worker's operator's listener.")
    ] = None,
    show: Show = SHOW,
) -> int:
    """Show whether the worker is connected, and how many jobs run, wait, and are not acknowledged."""
    settings = sources.load().settings
    counts = _kept(settings)
    running = trio.run(_ask, f"http://{settings.ops.host}:{ops_port or settings.ops.port}/status")
    link = None if running is None else running.link
    report = WorkerReport(
        orchestrator=settings.worker.orchestrator_url,
        running=running is not None,
        hotkey="" if running is None else running.hotkey,
        connection="" if link is None else link.phase,
        since=None if link is None else link.since,
        connections=0 if link is None else link.connections,
        last_loss="" if link is None else link.last_loss,
        jobs=counts,
    )
    if show.json:
        output.document(report)
        return Exit.DONE
    lines: dict[str, object] = {
        "orchestrator": report.orchestrator or "none is set: worker.orchestrator_url",
        "running": "yes" if report.running else "no worker answers; --ops-port names another port",
        "hotkey": report.hotkey,
        "connection": f"{report.connection} since {moment(report.since)}" if link is not None else "",
        "last loss": report.last_loss,
        "jobs": f"{counts.running} running, {counts.accepted} waiting",
        "results": f"{counts.unacknowledged} not acknowledged, {counts.acknowledged} acknowledged and kept",
    }
    output.record({name: text for name, text in lines.items() if text != ""}, json=False)
    return Exit.DONE


@app.command(help_epilogue="Example: `engram worker jobs --state done --last 5`")
def jobs(
    *,
    state: Annotated[Literal["accepted", "running", "done"] | None, Parameter(help="Only jobs in this state.")] = None,
    last: Annotated[int, Parameter(converter=whole, help="How many, the newest first.")] = 20,
    sources: Sources = SOURCES,
    show: Show = SHOW,
) -> int:
    """List the newest jobs that had an id; the others leave nothing behind."""
    if not 0 < last <= 10_000:
        raise CommandFailed(f"--last is from 1 to 10000, not {last}", Exit.USAGE)
    settings = sources.load().settings
    _require_folder(settings)
    found: list[ListedJob] = read_in_use(settings, lambda c: records.newest(c, last, state), Exit.NOT_RUNNING)
    if show.json:
        output.document(found)
    else:
        output.rows(found, _JOBS, json=False)
    return Exit.DONE


def _require_folder(settings: Settings) -> None:
    folder = Path(settings.data_dir)
    if folder.exists() and not folder.is_dir():
        raise CommandFailed(f"{folder} is a file, not a data folder", Exit.NOT_RUNNING)


def _kept(settings: Settings) -> JobCounts:
    """Return how many jobs are kept. Raises CommandFailed where no ledger can be read."""
    _require_folder(settings)
    return read_in_use(settings, records.counts, Exit.NOT_RUNNING)


async def _ask(url: str) -> _Running | None:
    client = HttpClient()
    try:
        answer = await client.request("GET", url, fresh=True, total_s=ASK_S)
        return wire.decode(answer.content, _Running)
    except (HttpError, msgspec.DecodeError, UnicodeDecodeError):
        return None  # nothing, or another program
    finally:
        await client.aclose()
