"""`engram miner`: starts a memory miner, rebuilds or pushes its index, and groups the other commands."""

import os
from typing import Annotated, Final

from cyclopts import App, Parameter

from engram.cli import roles
from engram.cli.data_folder import Data, truth_of
from engram.cli.failures import CommandFailed
from engram.cli.miner.export import export
from engram.cli.miner.folder import backup, erase, repair, restore, verify
from engram.cli.miner.guard import guard
from engram.cli.miner.ingest import ingest
from engram.cli.miner.mcp import mcp
from engram.cli.miner.use import query, stats
from engram.cli.output import complain
from engram.cli.progress import progress
from engram.durable.driver import sqlite3

KEY_VARIABLE: Final = "QDRANT_API_KEY"
_INDEX = "index"

app = App(
    name="miner",
    help="Start a memory miner, or query, check, back up and export one.",
    help_epilogue="Example: `engram miner --config launch.json`",
)
app.default(roles.miner)

for _function, _example in (
    (ingest, "ingest notes.jsonl --to http://127.0.0.1:8091 --key my-hotkey --namespace notes"),
    (query, 'query "Which animals nap together?" --to http://127.0.0.1:8091'),
    (mcp, "mcp --to http://127.0.0.1:8091 --key my-hotkey --namespace notes"),
    (stats, "stats --data /var/lib/engram/my-node --json"),
    (verify, "verify /var/lib/engram/my-node"),
    (backup, "backup /var/lib/engram/my-node /var/backups/my-node-2026-11-21"),
    (restore, "restore /var/backups/my-node-2026-11-21 /var/lib/engram/my-node"),
    (repair, "repair /var/lib/engram/my-node"),
    (export, "export /var/lib/engram/my-node my-memory.jsonl"),
    (guard, "guard my-memory.jsonl --gateway https://gateway.example --session 0d7c… --key my-hotkey"),
    (erase, "erase /var/lib/engram/my-node"),
):
    app.command(_function, help_epilogue=f"Example: `engram miner {_example}`")


@app.command(help_epilogue="Example: `engram miner reindex /var/lib/engram/my-node`")
def reindex(data: Data) -> None:
    """Rebuild the index with its graphs, and the words, from the records. The node must be down; it is safe to stop.

    Windows of long texts are embedded again in the background when the node runs.
    """
    from engram.memory.index import edge_reindex
    from engram.memory.upkeep import derived
    from engram.miner import folder
    from engram.miner.errors import FolderInUse

    truth = truth_of(data)
    try:
        with folder.claim(data):
            with progress("vectors") as on_progress:
                count = edge_reindex.reindex(truth, data / _INDEX, on_progress)
            with progress("words") as on_progress:
                texts = derived.rebuild_words(data, on_progress)
            derived.forget_windows(data)
    except FolderInUse as error:
        raise CommandFailed(f"{error}; stop it first (while it runs, it builds its graph by itself)") from None
    except (sqlite3.Error, OSError) as error:
        raise CommandFailed(f"the index of {data} cannot be built: {error}; the old one is unchanged") from None
    complain(f"the index has {count} vectors, and the words of {texts} texts")


@app.command(help_epilogue="Example: `engram miner push /var/lib/engram/my-node --to https://qdrant.example:6333`")
def push(
    data: Data,
    *,
    to: Annotated[str, Parameter(help=f"URL of the Qdrant server; its key is read from {KEY_VARIABLE}.")],
) -> None:
    """Send the vectors to a Qdrant server. After a stop or failure, run it again to resume."""
    import trio

    from engram.memory.errors import MemoryAreaError

    try:
        from engram.memory.index.qdrant_push import push as pushed
    except ImportError:
        raise CommandFailed("qdrant-client is not installed: install engram with its extra `qdrant`") from None
    truth, key = truth_of(data), os.environ.get(KEY_VARIABLE)

    async def run() -> int:
        with progress("vectors") as on_progress:
            return await pushed(truth, to, api_key=key, on_progress=on_progress)

    try:
        count = trio.run(run)
    except (MemoryAreaError, sqlite3.Error) as error:
        raise CommandFailed(f"not everything was sent: {error}; run it again to resume") from None
    complain(f"the server has {count} vectors")
