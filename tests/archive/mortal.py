"""`python -m tests.archive.mortal FOLDER URL STEP WORK`: archives a node to Arweave, or restores it (WORK: `update`,
`shred`, `restore`, or `buy`, which is `update` paid for by x402), and kills itself at a step.

Steps are what it does to its disk and to services: each counts twice, before it and after it. Step 0 is none.
The number of steps of a whole run is written to FOLDER/steps.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from engram import files
from engram.archive import arweave_place
from engram.archive.archiver import Archiver
from engram.archive.arweave_place import ArweavePlace, SplitPlace
from engram.archive.bundler import Bundler
from engram.archive.folder_place import FolderPlace
from engram.archive.item_keys import EthereumKey
from engram.archive.journal import Journal
from engram.archive.reading import open_archive
from engram.archive.restorer import restore
from engram.archive.upload_payment import UploadWallet
from engram.http.client import HttpClient
from engram.memory.upkeep import rows, verify
from engram.miner.folder import claim
from engram.payments.evm_rpc import EvmRpc, json_rpc
from engram.payments.networks import PLAY
from tests.archive.nodes import OWNER
from tests.archive.test_crashes import HEADING, SECRET
from tests.fakes.evm import GENESIS_S

KEY = EthereumKey(b"\x05" * 32)
NAME = "memory"
NOW = GENESIS_S + 2_000
"""The time of the chain's newest block when its double starts."""


class Steps:
    def __init__(self, last: int) -> None:
        self.done = 0
        self._last = last

    def step(self) -> None:
        self.done += 1
        if self.done == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, does: Callable[..., Any]) -> Callable[..., Any]:
        def mortal(*args: Any, **named: Any) -> Any:
            self.step()
            found = does(*args, **named)
            self.step()
            return found

        return mortal

    def around_awaited(self, does: Callable[..., Any]) -> Callable[..., Any]:
        async def mortal(*args: Any, **named: Any) -> Any:
            self.step()
            found = await does(*args, **named)
            self.step()
            return found

        return mortal


def place_in(folder: Path, url: str, client: HttpClient, *, buys: bool = False) -> SplitPlace:
    bundler = Bundler(client, url, url, url)
    chain = EvmRpc(json_rpc(client, f"{url}/rpc", 10.0), PLAY, 2)
    wallet = UploadWallet(KEY, PLAY, chain.look, 10**9, lambda: NOW) if buys else None
    return SplitPlace(FolderPlace(folder / "keys"), ArweavePlace(bundler, KEY, NAME, folder / "spool", 10**9, wallet))


async def main(folder: Path, url: str, steps: Steps, work: str) -> None:
    arweave_place._LOOK_EVERY_S = 0.0  # type: ignore[misc]
    files.put = steps.around(files.put)
    Journal.note = steps.around(Journal.note)  # type: ignore[method-assign]
    HttpClient.request = steps.around_awaited(HttpClient.request)  # type: ignore[method-assign]
    client = HttpClient()
    place = place_in(folder, url, client, buys=work == "buy")
    if work == "restore":
        for name in ("rename", "replace", "unlink", "rmdir", "mkdir", "fsync"):
            setattr(os, name, steps.around(getattr(os, name)))
        rows.write = steps.around(rows.write)
        verify.check = steps.around(verify.check)
        with claim(folder / "other"):
            opened = await open_archive(place, HEADING, SECRET)
            await restore(place, opened, folder / "other", "11111111-0000-4000-8000-000000000000")
    else:
        archiver = Archiver(place, HEADING, OWNER, Journal(folder / "journal"), lambda: 1.0)
        await getattr(archiver, "update" if work == "buy" else work)(folder / "node")
    await client.aclose()
    (folder / "steps").write_text(str(steps.done))


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), sys.argv[2], Steps(int(sys.argv[3])), sys.argv[4])
