"""`engram miner verify`, `backup`, `restore`, `repair`, `erase`: the data folder of a node."""

import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from cyclopts import Parameter

from engram.cli import output
from engram.cli.data_folder import Data, truth_of
from engram.cli.failures import CommandFailed, Exit
from engram.cli.options import SHOW, Show
from engram.cli.progress import progress
from engram.durable.driver import sqlite3

if TYPE_CHECKING:
    from engram.memory.upkeep.verify import CheckResult

_COMPARED_AT_MOST = 5

Verdict = Literal["agrees", "differs", "not running", "changing", "not reached"]


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What `verify` found."""

    sound: bool
    node: Verdict
    records: int
    public_records: int
    public_root: str
    whole_root: str
    key_shares: int
    conversations: int
    attestations: int
    bad_records: int
    problems: list[str]
    bad: list[dict[str, str]]


def verify(
    data: Data,
    *,
    key: Annotated[
        Path | None, Parameter(help="The controller's hotkey file, to compare the root over private records too.")
    ] = None,
    show: Show = SHOW,
) -> int:
    """Recompute every CID and root from the databases, and compare the roots with those the running node signs.

    Exits with 1 when something is wrong and lists the CIDs; with 4 when a running node could not be compared.
    """
    from engram.memory.upkeep import verify
    from engram.miner import folder

    truth_of(data)
    with _folder_errors("nothing was changed"), progress("records") as on_progress:
        running = folder.is_running(data)
        found = verify.check(data, on_progress)
        verdict: Verdict = "not running"
        if running:
            found, verdict = _compared(data, found, key)
    result = Verified(
        sound=found.is_sound and verdict != "differs",
        node=verdict,
        bad=[msgspec.structs.asdict(each) for each in found.bad],
        **{name: getattr(found, name) for name in Verified.__struct_fields__ if name not in ("sound", "node", "bad")},
    )
    if show.json:
        output.document(result)
    else:
        facts = msgspec.structs.asdict(result)
        output.record({k: v for k, v in facts.items() if k not in ("bad", "problems")}, json=False)
        for problem in found.problems:
            output.complain(problem)
        for bad in found.bad:
            output.complain(f"bad record {bad.cid} in namespace {bad.namespace}: {bad.reason}")
        if verdict == "differs":
            output.complain("the node has signed another root than its records give")
    if not result.sound:
        return Exit.FAILED
    return Exit.UNKNOWN if verdict in ("changing", "not reached") else Exit.DONE


def backup(
    data: Data, target: Annotated[Path, Parameter(help="Folder to write; it must not exist yet.")], *, show: Show = SHOW
) -> None:
    """Copy a node's records, key shares, conversations and attestations into the new folder TARGET.

    The node may run. Its own key (`hotkey_file` of its launch file) is not in it.
    """
    from engram.memory.upkeep import backups

    truth_of(data)
    with _folder_errors("no backup was made"), progress("pages") as on_progress:
        made = backups.back_up(data, target, time.time(), on_progress)
    size = sum(file.bytes for file in made.files.values())
    output.record({"backup": str(target), "records": made.records, "bytes": size}, json=show.json)


def restore(
    source: Annotated[
        str,
        Parameter(
            name=["--source", "--from"],
            help="A backup's folder, or an archive: its folder, s3://BUCKET/PREFIX or ar://NAME.",
        ),
    ],
    data: Data,
    *,
    key: Annotated[
        Path | None, Parameter(help="Of an archive: the owner's hotkey file, where the hotkey opens it.")
    ] = None,
    shares_file: Annotated[
        Path | None, Parameter(help="Of an archive: a file with its shares, one a line, where shares open it.")
    ] = None,
    owner: Annotated[str, Parameter(help="Of an archive: its owner's address, where --key is not named.")] = "",
    force: Annotated[bool, Parameter(help="Also replace records that exist, whole or damaged.", negative="")] = False,
    show: Show = SHOW,
) -> None:
    """Replace a node's memory by a backup or an archive. The node must be down.

    Its former data are kept in `before-restore-N`. `engram archive restore` can restore a part of an archive.
    """
    from engram.archive.model import HEADER
    from engram.cli.archive import command as archives

    if "://" in source or Path(source, HEADER).exists():
        archives.restore(source, data, key=key, shares_file=shares_file, owner=owner, force=force, show=show)
        return
    if key is not None or shares_file is not None or owner:
        raise CommandFailed(f"{source} is no archive: a backup needs neither a key nor shares", Exit.USAGE)
    _restore_backup(Path(source), data, force, show)


def _restore_backup(source: Path, data: Path, force: bool, show: Show) -> None:
    from engram.memory.upkeep import backups
    from engram.miner import folder

    with _folder_errors("nothing was changed"):
        held = backups.check(source)
        with folder.claim(data):
            if not force:
                backups.refuse_over(data)
            kept = backups.restore(source, data, str(uuid.uuid4()))
            former = str(kept) if kept.exists() else ""
    output.record({"restored": str(data), "records": held.records, "former_files": former}, json=show.json)


def repair(data: Data, *, show: Show = SHOW) -> None:
    """Salvage damaged databases. The node must be down; the damaged files are kept in `damaged-N`.

    Keeps only records that match their CIDs. Rows on damaged pages are lost, except in a backup.
    """
    from engram.memory.upkeep import salvage
    from engram.miner import folder

    truth_of(data)
    with _folder_errors("nothing was changed"), folder.claim(data), progress("rows") as on_progress:
        saved = salvage.repair(data, str(uuid.uuid4()), on_progress)
    output.record(saved, json=show.json)


def erase(
    data: Data,
    *,
    yes: Annotated[bool, Parameter(help="Erase without asking.", negative="")] = False,
    show: Show = SHOW,
) -> None:
    """Overwrite and remove a node's whole data folder, so that it cannot be read any more. The node must be down.

    A filesystem that journals data or copies on write, snapshots and flash drives may keep older blocks: only
    encryption helps there. The node's key, launch file and log, backups, exports, and vectors pushed to a server are
    stored elsewhere and stay.
    """
    from engram.memory.upkeep import erasure
    from engram.miner import folder

    if not (data / folder.LOCK).is_file() and not (data / "truth.db").is_file():
        raise CommandFailed(f"{data} is no data folder of a node: nothing was erased")
    if not yes and not _agreed(f"Erase all of {data}? This cannot be undone. [yes/no] "):
        raise CommandFailed("nothing was erased: answer yes, or run it with --yes")
    with (
        _folder_errors("not everything was erased; run it again"),
        folder.claim(data),
        progress("bytes") as on_progress,
    ):
        gone = erasure.erase(data, folder.LOCK, on_progress)
    output.record(gone, json=show.json)


def _compared(data: Path, found: "CheckResult", key: Path | None) -> "tuple[CheckResult, Verdict]":
    """Return the result, rechecked while the node keeps writing, and how its signed roots compare."""
    from engram.cli.miner.roots import Roots, roots_of_node
    from engram.memory.upkeep import verify
    from engram.sdk.errors import SdkError

    verdict: Verdict = "changing"
    for _ in range(_COMPARED_AT_MOST):
        try:
            before = roots_of_node(data, key)
            found = verify.check(data)
            after = roots_of_node(data, key)
        except SdkError as error:
            output.complain(f"the running node cannot be compared: {error}")
            return found, "not reached"
        ours = Roots(found.public_root, found.whole_root if key else "")
        if ours in (before, after):
            return found, "agrees"
        verdict = "differs" if before == after else "changing"
    return found, verdict


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        return False
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() == "yes"


@contextmanager
def _folder_errors(outcome: str) -> Iterator[None]:
    """Raise CommandFailed for errors of a data folder; `outcome` says what state it is in then."""
    from engram.memory.errors import MemoryAreaError
    from engram.miner.errors import FolderInUse, NodeError

    try:
        yield
    except FolderInUse as error:
        raise CommandFailed(f"{error}; stop the node first") from None
    except (MemoryAreaError, NodeError, OSError, sqlite3.Error) as error:
        raise CommandFailed(f"{error} ({outcome})") from None
