"""Files as `engram new miner` and `engram proxy config` write them, run unedited on their own ports.

A program, `python -m tests.kit.default_files FOLDER`, for a network namespace: the ports of the files are free there,
and nothing is reached that a default names. MINER_HOTKEY is set, and CHAIN_ENDPOINT to a chain in place of the public
one. Prints one JSON document of what a validator saw.
"""

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import trio

from engram.hotkeys import Keypair, ss58
from tests.fakes.chain import ChainDouble, ChainServer, renumbered
from tests.kit.projects import engram, running
from tests.kit.test_project import looked_at
from tests.proxy.process import ProxyProcess
from tests.proxy.signing import ALICE, headers_of
from tests.proxy.test_process import Called, sent

NETUID = 11
HERS, ENOUGH = 495_856_739_115, 1_050 * 10**9
"""Alice's recorded stake in rao, and one of as many bytes that is above the default threshold."""


def authorizing(scale: bytes) -> bytes:
    """The recorded subnet as the default one, with Alice a validator that may call."""
    return renumbered(NETUID)(scale.replace(HERS.to_bytes(5, "little"), ENOUGH.to_bytes(5, "little")))


def made(folder: Path) -> dict[str, Any]:
    """Write the files of two miners and a proxy; return what `engram new` said of the first miner."""
    first = json.loads(engram("new", "miner", "one", "--json", folder=folder).stdout)
    assert engram("new", "miner", "two", "--port", "8092", folder=folder).returncode == 0
    return dict(first)


def seen(folder: Path, chain_url: str) -> dict[str, Any]:
    first = made(folder)
    proxy = ProxyProcess(folder, {})
    proxy.config.unlink()
    assert engram("proxy", "config", folder=folder).returncode == 0
    with running(folder / "one") as one, running(folder / "two") as two, proxy:
        proxy.start(MINER_HOTKEY=first["hotkey"], CHAIN_ENDPOINT=chain_url)
        receiver = ss58.decode(first["hotkey"])

        def ask(by: Keypair) -> Called:
            body = b'{"query": "abc"}'
            return sent(proxy, "POST", "/inference", body, lambda: headers_of(body, by=by, to=receiver))

        until_read = time.monotonic() + 30
        while True:
            status, body, _ = ask(ALICE)
            if status != 503 or time.monotonic() > until_read:
                break
            time.sleep(0.1)
        stranger = ask(Keypair.generate())
        found = trio.run(looked_at, proxy.url, receiver)
        findings = [*found.reach, *found.work, *found.signatures]
        return {
            "urls": [one, two, proxy.url],
            "answer": [status, json.loads(body)],
            "stranger": [stranger[0], json.loads(stranger[1])["code"]],
            "wrong": {each.what: each.words for each in findings if not each.good},
        }


async def main(folder: Path) -> dict[str, Any]:
    async with trio.open_nursery() as nursery:
        chain = ChainDouble()
        chain.metagraphs["0x0b00"] = authorizing
        url = await nursery.start(ChainServer(chain).run)
        found: dict[str, Any] = await trio.to_thread.run_sync(partial(seen, folder, url))
        nursery.cancel_scope.cancel()
    return found


if __name__ == "__main__":
    print(json.dumps(trio.run(main, Path(sys.argv[1]))))
