"""An archive on Arweave: permanent, public, sealed. Its keys lie elsewhere, where they can be destroyed.

    part --> item signed, on disk --> price within the limit --> noted as sent --> sent --> read back: it counts

The item on disk is what is sent, now and after any crash: its id stays the same, and it is charged once. What was noted
as sent is looked for before it is sent again. Nothing can be deleted there, so `delete` does nothing, and keys are
refused.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, final

import trio

from engram import files
from engram.archive import ans104
from engram.archive.bundler import Bundler
from engram.archive.errors import (
    AlreadyThere,
    CannotErase,
    Damaged,
    Missing,
    NotAccepted,
    PaymentWanted,
    PlaceUnavailable,
    TooDear,
)
from engram.archive.item_keys import SCHEMES, EthereumKey
from engram.archive.model import HEADER
from engram.archive.place import MOST_BYTES, MOST_HEADER, Place
from engram.archive.upload_payment import Authorized, UploadWallet, decode, encode

KEYS: Final = "keys/"
_APP: Final = ("App-Name", "Engram-Archive")
_ARCHIVE: Final = "Archive"
_PART: Final = "Part"
_LOOK_EVERY_S: Final = 2.0
_LOOKS: Final = 15
_ITEM_BYTES: Final = 512
"""What an item takes beside its data, at most."""
_MOST_HEADERS: Final = 200
"""Archives of one name that are looked at to find an owner's."""
_SENT: Final = ".sent"
_PAYMENT: Final = ".payment"
"""An authorization that may have been sent with the item."""
_ID: Final = ".id"


async def address_of(bundler: Bundler, archive: str, is_wanted: Callable[[bytes], bool]) -> str:
    """Return the address whose items are an archive, by a header that is wanted: anyone may use the same name.

    Raises Missing, PlaceUnavailable.
    """
    tags = {_APP[0]: _APP[1], _ARCHIVE: archive, _PART: HEADER}
    found = await bundler.find(None, tags, _MOST_HEADERS)
    for each in found[:_MOST_HEADERS]:
        with suppress(Damaged):
            header = await bundler.read(each.id, MOST_HEADER)
            if header is not None and is_wanted(header):
                return each.owner
    raise Missing(f"of {len(found)} archives on Arweave that are named {archive} none is this owner's")


@final
class ArweavePlace:
    """Items of one key, tagged with the archive's name and the part's. `spool` keeps what is not seen yet, by key.

    `key` pays and signs; where an archive is only read, the address of that key is enough. `most` is what all parts
    together may cost, in winston credits, as long as this object lives. With a `wallet` each part is paid for by x402
    instead, within the wallet's own limit, and prices are millionths of a USDC.
    """

    def __init__(
        self,
        bundler: Bundler,
        key: EthereumKey | str,
        archive: str,
        spool: Path,
        most: int,
        wallet: UploadWallet | None = None,
    ) -> None:
        self._bundler = bundler
        self._wallet = wallet
        self._key = key
        self._archive = archive
        self.owner = key if isinstance(key, str) else ans104.text_id(hashlib.sha256(key.owner).digest())
        """The address that owns the items: the hash of the key, as Arweave writes it."""
        self._spool = spool / self.owner
        self._most = most
        self._spent = 0
        self._ids: dict[str, str] = {}

    @property
    def address(self) -> str:
        return f"ar://{self._archive}"

    @property
    def is_local(self) -> bool:
        return False

    @property
    def keeps_forever(self) -> bool:
        return True

    async def price(self, sizes: Sequence[int]) -> int:
        counts = Counter(size + _ITEM_BYTES for size in sizes)
        what = f"{len(sizes)} parts of {sum(sizes)} bytes"
        if self._wallet is not None:
            network = self._wallet.network
            price = sum([count * await self._bundler.usdc_price(size, network) for size, count in counts.items()])
            self._wallet.require_within(price, what)
            return price
        price = sum([count * await self._bundler.price(size) for size, count in counts.items()])
        self._require_within(price, what)
        return price

    async def put(self, name: str, content: bytes) -> None:
        if name.startswith(KEYS):
            raise CannotErase(f"{name} would lie on Arweave forever: keep keys where they can be destroyed")
        known = await self._id_of(name)
        if known is not None:
            if await self._data(name, known, MOST_BYTES) != content:
                raise AlreadyThere(f"{self.address}/{name} is there and has other bytes")
            await trio.to_thread.run_sync(self._settled, name, known)
            return
        item = await trio.to_thread.run_sync(self._kept, name, content)
        if ans104.parse(item, SCHEMES).data != content:
            raise AlreadyThere(
                f"{self.address}/{name} was sent with other bytes, which may arrive: they are in {self._spool}"
            )
        await self._bring(name, item)

    async def resume(self, name: str) -> bool:
        path = self._path(name)
        if not path.exists():
            return await self._id_of(name) is not None
        if not self._was_sent(name):
            path.unlink()
            return False
        await self._bring(name, await trio.to_thread.run_sync(path.read_bytes))
        return True

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

    def _kept(self, name: str, content: bytes) -> bytes:
        """Return the item that stands for a part, written down before anything is sent; one never sent is replaced."""
        path = self._path(name)
        try:
            self._spool.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.exists() and self._was_sent(name):
                return path.read_bytes()
            if isinstance(self._key, str):
                raise NotAccepted(f"{self.address} is only read here: a key that pays is needed to write")
            tags = [_APP, ("Content-Type", "application/octet-stream"), (_ARCHIVE, self._archive), (_PART, name)]
            item = ans104.make(self._key, content, tags)
            files.put(path, item)
        except OSError as error:
            raise PlaceUnavailable(f"{path} cannot be written: {error}") from error
        return item

    async def _bring(self, name: str, item: bytes) -> None:
        """Send an item, once, and wait until it is seen. What is known not to have been sent leaves nothing behind."""
        parsed = ans104.parse(item, SCHEMES)
        if self._was_sent(name) and (
            await self._bundler.is_known(parsed.id) or await self._bundler.read(parsed.id, MOST_BYTES) is not None
        ):
            await self._see(name, parsed.id, parsed.data)
            return
        if self._wallet is not None:
            await self._buy(self._wallet, name, item)
        elif self._was_sent(name):
            await self._bundler.send(item)
        else:
            try:
                await self._require_affordable(len(item))
                await trio.to_thread.run_sync(self._note_sent, name)
                await self._bundler.send(item)
            except (TooDear, PaymentWanted, NotAccepted):
                self._path(name, _SENT).unlink(missing_ok=True)
                self._path(name).unlink(missing_ok=True)
                raise
        await self._see(name, parsed.id, parsed.data)

    async def _buy(self, wallet: UploadWallet, name: str, item: bytes) -> None:
        """Return once an item is taken and paid for by x402. What no payment was sent for leaves nothing behind.

        Raises PaymentUnknown when what was authorized earlier may have been paid.
        """
        path, was_sent = self._path(name, _PAYMENT), self._was_sent(name)
        held: Authorized | None = None
        if path.exists():
            held = decode(await trio.to_thread.run_sync(path.read_bytes), str(path))
            if await wallet.is_void(held):
                path.unlink()
                held = None
        if held is None:
            try:
                await trio.to_thread.run_sync(self._note_sent, name)
                terms = await self._bundler.terms(item, wallet.network)
                if terms is None:
                    return
                held = wallet.authorize(terms, f"{len(item)} bytes")
            except (TooDear, PaymentWanted, NotAccepted):
                if not was_sent:
                    self._path(name, _SENT).unlink(missing_ok=True)
                    self._path(name).unlink(missing_ok=True)
                raise
            await trio.to_thread.run_sync(self._written, path, encode(held))
        await self._bundler.pay(item, held.header)

    async def _require_affordable(self, size: int) -> None:
        price = await self._bundler.price(size)
        self._require_within(price, f"{size} bytes")
        self._spent += price

    def _require_within(self, price: int, what: str) -> None:
        if self._spent + price > self._most:
            spent = f" after {self._spent}" if self._spent else ""
            raise TooDear(f"{what} cost {price} winston credits{spent}; at most {self._most} are paid at once")

    async def _see(self, name: str, item_id: str, content: bytes) -> None:
        for look in range(_LOOKS):
            if look:
                await trio.sleep(_LOOK_EVERY_S)
            found = await self._bundler.read(item_id, MOST_BYTES)
            if found == content:
                await trio.to_thread.run_sync(self._settled, name, item_id)
                return
            if found is not None:
                raise Damaged(f"{self.address}/{name} was taken, and other bytes are shown for it ({item_id})")
        raise PlaceUnavailable(f"{self.address}/{name} was taken and is not shown yet ({item_id}): run it again later")

    def _settled(self, name: str, item_id: str) -> None:
        """Note a part's id, which the gateway's index may not know for a while, and let go of its item."""
        self._ids[name] = item_id
        try:
            self._spool.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.put(self._path(name, _ID), item_id.encode())
            for suffix in ("", _SENT, _PAYMENT):
                self._path(name, suffix).unlink(missing_ok=True)
        except OSError as error:
            raise PlaceUnavailable(f"{self._spool} cannot be written: {error}") from error

    async def _id_of(self, name: str) -> str | None:
        if name not in self._ids and (path := self._path(name, _ID)).exists():
            self._ids[name] = path.read_text("ascii")
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

    def _was_sent(self, name: str) -> bool:
        """Return whether an item may have been sent."""
        return self._path(name, _SENT).exists()

    def _note_sent(self, name: str) -> None:
        self._written(self._path(name, _SENT), b"")

    def _written(self, path: Path, content: bytes) -> None:
        try:
            files.put(path, content)
        except OSError as error:
            raise PlaceUnavailable(f"{self._spool} cannot be written: {error}") from error

    def _path(self, name: str, suffix: str = "") -> Path:
        return self._spool / f"{name.replace('/', '-')}{suffix}"


@final
class SplitPlace:
    """An archive whose keys lie in one place and all else in another."""

    def __init__(self, keys: Place, rest: Place) -> None:
        self._keys = keys
        self._rest = rest

    @property
    def address(self) -> str:
        return f"{self._rest.address} with keys in {self._keys.address}"

    @property
    def is_local(self) -> bool:
        return self._rest.is_local

    @property
    def keeps_forever(self) -> bool:
        return self._rest.keeps_forever

    async def price(self, sizes: Sequence[int]) -> int:
        return await self._rest.price(sizes)

    async def put(self, name: str, content: bytes) -> None:
        await self._of(name).put(name, content)

    async def resume(self, name: str) -> bool:
        return await self._of(name).resume(name)

    async def get(self, name: str, most: int) -> bytes:
        return await self._of(name).get(name, most)

    async def delete(self, name: str) -> None:
        await self._of(name).delete(name)

    async def names(self, folder: str) -> list[str]:
        return await self._of(f"{folder}/").names(folder)

    def _of(self, name: str) -> Place:
        return self._keys if name.startswith(KEYS) else self._rest
