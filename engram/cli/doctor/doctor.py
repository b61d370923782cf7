"""`engram version` and `engram doctor`: versions, and problems that keep Engram from working."""

import importlib.metadata
import platform
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import trio
from cyclopts import Parameter

import config
from config import Loaded
from config.model import Settings
from engram import __version__
from engram.cli import output
from engram.cli.doctor.finding import Finding, Verdict
from engram.cli.failures import Exit
from engram.cli.options import SHOW, SOURCES, Show, Sources
from engram.cli.output import Column
from engram.durable import driver
from engram.ledger import LEDGER_FILE

LIBRARIES: Final = (
    "trio",
    "quart",
    "quart-trio",
    "wsproto",
    "msgspec",
    "SQLAlchemy",
    "httpx2",
    "py-sr25519-bindings",
    "coincurve",
    "qdrant-edge-py",
    "onnxruntime",
)
FREE_BYTES: Final = 1_000_000_000


def version(*, show: Show = SHOW) -> None:
    """Show the versions of Engram, Python, SQLite and the main libraries."""
    output.record(
        {
            "engram": __version__,
            "python": platform.python_version(),
            "sqlite": driver.VERSION,
            **{name: _installed(name) or "not installed" for name in LIBRARIES},
        },
        json=show.json,
    )


def doctor(
    *,
    of_program: Annotated[
        bool,
        Parameter(
            name="--self",
            help="Only the program itself: its form, its files against their hashes, and how it is confined.",
            negative="",
        ),
    ] = False,
    sources: Sources = SOURCES,
    show: Show = SHOW,
) -> int:
    """Look for faults in settings, disk, ledger, SQLite, ports, facilitator, clock, token, refund key and libraries.

    Says whether anything could be sold.

    What is wrong makes the exit status non-zero; asks the facilitator and the chain, changes nothing.
    """
    from engram.cli.doctor import ledger
    from engram.cli.doctor.akash import akash
    from engram.cli.doctor.app_files import app_files
    from engram.cli.doctor.engine import engine
    from engram.cli.doctor.money import money
    from engram.cli.doctor.own import own
    from engram.cli.doctor.sales import sales

    if of_program:
        return _shown(list(own()), show)
    loaded = sources.load()
    path = Path(loaded.settings.data_dir).resolve() / LEDGER_FILE
    findings = [*_settings(loaded), _python(), ledger.sqlite(), *_data_folder(loaded)]
    if loaded.settings.ledger.url:
        findings += ledger.on_server(loaded.settings)
    elif path.exists():
        findings += ledger.ledger(path, loaded.settings.environment)
    findings += _ports(loaded)
    waiting = ledger.read_waiting(loaded.settings, time.time())
    findings += trio.run(money, loaded.settings, 0 if waiting is None else waiting.owed)
    findings += trio.run(engine, loaded.settings)
    findings += trio.run(akash, loaded.settings)
    findings += trio.run(app_files, loaded.settings)
    findings += [*_node(loaded.settings), *sales(loaded.settings, path, findings)]
    return _shown(findings, show)


def _shown(findings: Sequence[Finding], show: Show) -> int:
    output.rows(findings, (Column("", "verdict"), Column("what", "what"), Column("finding", "text")), json=show.json)
    return Exit.FAILED if any(finding.verdict == "bad" for finding in findings) else Exit.DONE


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _settings(loaded: Loaded) -> Iterator[Finding]:
    try:
        config.check(loaded.settings)
    except config.ConfigError as error:
        for problem in error.problems:
            yield Finding("settings", "bad", str(problem))
    else:
        yield Finding("settings", "good", f"right for a gateway on {loaded.profile}")
    for caution in config.cautions(loaded.settings):
        yield Finding(caution.key, "note", caution.message)
    for unread in loaded.unread:
        yield Finding(unread.key, "note", unread.message)


def _python() -> Finding:
    good = sys.version_info >= (3, 11)
    return Finding("python", "good" if good else "bad", f"{platform.python_version()}, 3.11 or newer is needed")


def _data_folder(loaded: Loaded) -> Iterator[Finding]:
    folder = Path(loaded.settings.data_dir).resolve()
    if not folder.exists():
        yield Finding("data folder", "good", f"{folder} will be made")
    elif not folder.is_dir():
        yield Finding("data folder", "bad", f"{folder} is a file, not a folder: set data_dir to another")
    elif folder.stat().st_mode & 0o077:
        yield Finding("data folder", "note", f"{folder} is open to other users: chmod 700 it")
    else:
        yield Finding("data folder", "good", str(folder))
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    verdict: Verdict = "good" if free >= FREE_BYTES else "bad"
    yield Finding("disk", verdict, f"{free / 1e9:.1f} GB free at {there}, {FREE_BYTES / 1e9:.0f} GB are needed")


def _ports(loaded: Loaded) -> Iterator[Finding]:
    settings = loaded.settings
    for key, host, port in (
        ("gateway.port", settings.gateway.host, settings.gateway.port),
        ("ops.port", settings.ops.host, settings.ops.port),
    ):
        taken = _taken(host, port)
        if taken is None:
            yield Finding(key, "good", f"{host}:{port} is free")
        else:
            yield Finding(key, "note", f"{host}:{port} cannot be taken ({taken}): is Engram running? else change {key}")


def _taken(host: str, port: int) -> str | None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _node(settings: Settings) -> Iterator[Finding]:
    from engram.provisioning import node_parts

    absent = node_parts.missing(settings.miner)
    if absent:
        verdict: Verdict = "bad" if "local" in settings.provisioning.chosen else "note"
        text = f"{', '.join(absent)} not installed, so that no node can run here: {node_parts.remedy(absent)}"
        yield Finding("node", verdict, text)
    else:
        yield Finding("node", "good", "what nodes need is installed")
