"""The hotkeys that the gateway keeps for nodes on machines of others, opened when something must be signed by one."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

import trio

from engram.hotkeys import HotkeyError, Keypair, WalletEncrypted, ss58, wallet
from engram.hotkeys.opening import keypair_of
from engram.provisioning import node_keys
from engram.provisioning.errors import NodeKeyError
from engram.provisioning.model import NodeKey

_KEPT: Final = 256


@final
class HotkeyRing:
    """Opens wallet files of the pool, and keeps the last 256 keys in memory. `password_of` raises HotkeyError."""

    def __init__(self, folder: Path, password_of: Callable[[Path], str | None]) -> None:
        """Take the folder of the pool's generated keys."""
        self._folder = folder
        self._password_of = password_of
        self._open: OrderedDict[bytes, Keypair] = OrderedDict()
        self._opening = trio.Lock()

    async def keypair(self, key: NodeKey) -> Keypair:
        """Return the pair of a key of the pool. Raises NodeKeyError when its file cannot be read or holds another."""
        async with self._opening:
            found = self._open.get(key.public_key)
            if found is None:
                try:
                    found = await self._read(node_keys.file_of(key, self._folder))
                except HotkeyError as error:
                    raise NodeKeyError(f"{error}") from error
                if found.public_key != key.public_key:
                    raise NodeKeyError(f"{key.path} holds {found.ss58}, not {ss58.encode(key.public_key)}")
                self._open[key.public_key] = found
                while len(self._open) > _KEPT:
                    self._open.popitem(last=False)
            self._open.move_to_end(key.public_key)
            return found

    async def _read(self, path: Path) -> Keypair:
        """Read the file, by a process of its own where it is encrypted. Raises HotkeyError."""
        try:
            return await trio.to_thread.run_sync(wallet.read_private_hotkey_file, path)
        except WalletEncrypted:
            password = await trio.to_thread.run_sync(self._password_of, path)
            if password is None:
                raise
            return await keypair_of(path, password)
