"""A chain that lives on a real loopback socket, in a thread of its own, and a wallet for commands to use."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import trio

from engram.hotkeys import Keypair, wallet
from tests.fakes.chain import ChainDouble, ChainServer


@contextmanager
def served(chain: ChainDouble) -> Iterator[ChainServer]:
    """Serves `chain` until the block ends."""
    server = ChainServer(chain)
    ready, ended = threading.Event(), threading.Event()
    tokens: list[trio.lowlevel.TrioToken] = []
    scope = trio.CancelScope()

    async def serve() -> None:
        tokens.append(trio.lowlevel.current_trio_token())
        with scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(server.run)
                ready.set()
                await trio.sleep_forever()
        ended.set()

    thread = threading.Thread(target=trio.run, args=[serve], daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        tokens[0].run_sync_soon(scope.cancel)
        assert ended.wait(10)
        thread.join(10)


def write_wallet(root: Path, name: str, *, hotkey: Keypair, coldkey: Keypair) -> Path:
    """A wallet as btcli lays it out."""
    folder = root / name
    wallet.write_hotkey_file(folder / "hotkeys" / "hot", hotkey)
    wallet.write_hotkey_file(folder / "coldkey", coldkey)
    public = {"ss58Address": coldkey.ss58, "publicKey": "0x" + coldkey.public_key.hex()}
    (folder / "coldkeypub.txt").write_bytes(msgspec.json.encode(public))
    return root
