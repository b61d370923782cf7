"""An archive on Arweave: permanent, public, sealed. Its keys lie elsewhere, where they can be destroyed.

    part --> item made and signed, on disk --> price below the limit --> sent --> taken --> read back: it counts

The item on disk is what is sent, now and after any crash: its id stays the same, and it is charged once. Nothing can be
deleted there, so `delete` does nothing, and keys are refused.
"""

import hashlib
from pathlib import Path
from typing import Final, final

import trio

from engram import files
from engram.archive import ans104
from engram.archive.bundler import Bundler
from engram.archive.errors import AlreadyThere, CannotErase, Damaged, Missing, PlaceUnavailable, TooDear
from engram.archive.item_keys import SCHEMES, EthereumKey
from engram.archive.place import MOST_BYTES, Place

KEYS: Final = "keys/"
_APP: Final = ("App-Name", "Engram-Archive")
_ARCHIVE: Final = "Archive"
_PART: Final = "Part"
_LOOK_EVERY_S: Final = 2.0
_LOOKS: Final = 15


@final
class ArweavePlace:
    """Items of one key, tagged with the archive's name and the part's. `spool` keeps what is not seen there yet.

    `most` is the price of one part, in winston credits, above which nothing is sent.
    """

    def __init__(
        self,
        bundler: Bundler,
        key: EthereumKey,
        archive: str,
        spool: Path,
        most: int,
    ) -> None:
        self._bundler = bundler
        self._key = key
        self._archive = archive
        self._spool = spool
        self._most = most
        self._ids: dict[str, str] = {}

    @property
    def address(self) -> str:
        return f"ar://{self._archive}"

    async def put(self, name: str, content: bytes) -> None:
        if name.startswith(KEYS):
            raise CannotErase(f"{name} would lie on Arweave forever: keep keys where they can be destroyed")
        known = await self._id_of(name)
        if known is not None:
            if await self._data(name, known, MOST_BYTES) != content:
                raise AlreadyThere(f"{self.address}/{name} is there and has other bytes")
            return
        item = await trio.to_thread.run_sync(self._kept, name, content)
        parsed = ans104.parse(item, SCHEMES)
        if parsed.data != content:
            raise AlreadyThere(f"{self.address}/{name} was begun with other bytes: they are in {self._spool}")
        price = await self._bundler.price(len(item))
        if price > self._most:
            raise TooDear(f"{len(item)} bytes cost {price} winston credits; at most {self._most} are paid for a part")
        await self._bundler.send(item)
        await self._see(name, parsed.id, content)

    async def get(self, name: str, most: int) -> bytes:
        known = await self._id_of(name)
        if known is None:
            raise Missing(f"{self.address}/{name} is missing")
        return await self._data(name, known, most)

    async def delete(self, name: str) -> None:
        """Do nothing: what lies there stays, and is unreadable once its epoch's key is destroyed."""

    async def names(self, folder: str) -> list[str]:
        found = await self._bundler.find(self.owner, {_APP[0]: _APP[1], _ARCHIVE: self._archive})
        parts = {each.tags[_PART]: each.id for each in found if _PART in each.tags}
        self._ids |= {name: item_id for name, item_id in parts.items() if name not in self._ids}
        return sorted(name for name in {*parts, *self._ids} if name.startswith(f"{folder}/"))

    @property
    def owner(self) -> str:
        """Return the address that owns the items: the hash of the key, as Arweave writes it."""
        return ans104.text_id(hashlib.sha256(self._key.owner).digest())

    def _kept(self, name: str, content: bytes) -> bytes:
        """Return the item that stands for a part, made and written down before anything is sent."""
        path = self._spool / name.replace("/", "-")
        try:
            self._spool.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.exists():
                return path.read_bytes()
            tags = [_APP, ("Content-Type", "application/octet-stream"), (_ARCHIVE, self._archive), (_PART, name)]
            item = ans104.make(self._key, content, tags)
            files.put(path, item)
        except OSError as error:
            raise PlaceUnavailable(f"{path} cannot be written: {error}") from error
        return item

    async def _see(self, name: str, item_id: str, content: bytes) -> None:
        for look in range(_LOOKS):
            if look:
                await trio.sleep(_LOOK_EVERY_S)
            found = await self._bundler.read(item_id, MOST_BYTES)
            if found == content:
                self._ids[name] = item_id
                (self._spool / name.replace("/", "-")).unlink(missing_ok=True)
                return
            if found is not None:
                raise Damaged(f"{self.address}/{name} was taken, and other bytes are shown for it ({item_id})")
        raise PlaceUnavailable(f"{self.address}/{name} was taken and is not shown yet ({item_id}): run it again later")

    async def _id_of(self, name: str) -> str | None:
        if name not in self._ids:
            tags = {_APP[0]: _APP[1], _ARCHIVE: self._archive, _PART: name}
            for each in await self._bundler.find(self.owner, tags):
                if each.tags.get(_PART) == name and each.tags.get(_ARCHIVE) == self._archive:
                    self._ids[name] = each.id
        return self._ids.get(name)

    async def _data(self, name: str, item_id: str, most: int) -> bytes:
        found = await self._bundler.read(item_id, most)
        if found is None:
            raise Missing(f"{self.address}/{name} is known and its bytes are not there ({item_id})")
        return found


@final
class SplitPlace:
    """An archive whose keys lie in one place and all else in another."""

    def __init__(self, keys: Place, rest: Place) -> None:
        self._keys = keys
        self._rest = rest

    @property
    def address(self) -> str:
        return f"{self._rest.address} with keys in {self._keys.address}"

    async def put(self, name: str, content: bytes) -> None:
        await self._of(name).put(name, content)

    async def get(self, name: str, most: int) -> bytes:
        return await self._of(name).get(name, most)

    async def delete(self, name: str) -> None:
        await self._of(name).delete(name)

    async def names(self, folder: str) -> list[str]:
        return await self._of(f"{folder}/").names(folder)

    def _of(self, name: str) -> Place:
        return self._keys if name.startswith(KEYS) else self._rest
