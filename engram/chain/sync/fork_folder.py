"""Keeps evidence of forks in the data folder, one JSON file each, for an operator to show to the endpoint's owner.

`chain-forks/BLOCK-HASH-HASH.json` (the first 16 digits of either hash) holds both headers as they came. The newest
FORKS_KEPT files are kept.
"""

from pathlib import Path
from typing import Final, final

import msgspec
import structlog
import trio

from engram import files
from engram.chain.model import Fork

FOLDER: Final = "chain-forks"
FORKS_KEPT: Final = 50

log = structlog.get_logger(__name__)


@final
class ForkFolder:
    """The evidence of forks in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def keep(self, fork: Fork) -> None:
        """Write the file unless it exists. A disk error is logged and does not stop syncing."""
        try:
            path = await trio.to_thread.run_sync(self._write, fork)
        except OSError as error:
            log.warning("chain_fork_not_kept", reason=error.strerror, block=fork.one.block)
            return
        if path is not None:
            log.error(
                "chain_fork",
                block=fork.one.block,
                one=fork.one.endpoint,
                other=fork.other.endpoint,
                evidence=str(path),
            )

    def _write(self, fork: Fork) -> Path | None:
        hashes = "-".join(sorted(claim.hash[2:18] for claim in (fork.one, fork.other)))
        path = self._folder / f"{fork.one.block:010d}-{hashes}.json"
        if path.exists():
            return None
        self._folder.mkdir(mode=0o700, exist_ok=True)
        files.put(path, msgspec.json.encode(fork))
        aged = sorted(self._folder.glob("*.json"), key=lambda kept: (kept.stat().st_mtime_ns, kept.name))
        for old in aged[:-FORKS_KEPT]:
            old.unlink(missing_ok=True)
        return path
