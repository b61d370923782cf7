"""Reads what hotkeys have committed on a subnet. A commitment that cannot be read is an entry too, not an error."""

from typing import Final

import msgspec

from engram import wire
from engram.chain.errors import AnswerMalformed, CallNotComposable, SubnetUnknown
from engram.chain.read.runtime import SUBTENSOR, RuntimeTypes, Value
from engram.chain.read.view import View
from engram.hotkeys import PublicKey, ss58

PALLET: Final = "Commitments"
ITEM: Final = "CommitmentOf"
ACCOUNT_BYTES: Final = 32
SUBNETS: Final = "NetworksAdded"


class HotkeyCommitment(msgspec.Struct, frozen=True):
    """The commitment of one hotkey."""

    hotkey: PublicKey
    address: str
    """The hotkey as the chain's tools write it."""
    block: int | None
    """Block of the commitment; None when the entry could not be read."""
    payload: bytes | None
    """The first field's bytes; None when it has none (a hash, a timelock, nothing)."""
    kind: str
    """The field's name in the metadata (`Raw17`, `Sha256`, `TimelockEncrypted` …), or what is wrong."""


async def read_commitments(view: View, netuid: int) -> list[HotkeyCommitment]:
    """Return every commitment of a subnet at the view's block, in the order of the storage keys.

    Raises SubnetUnknown: a subnet that does not exist is no subnet without commitments.
    """
    try:
        entries = await view.entries(PALLET, ITEM, netuid)
    except CallNotComposable:
        await _demand_subnet(view, netuid)
        raise
    if not entries:
        await _demand_subnet(view, netuid)
    shortest = len(view.types.storage_key(PALLET, ITEM, netuid)) + ACCOUNT_BYTES
    if any(len(key) < 2 + 2 * shortest for key, _ in entries):
        raise AnswerMalformed(f"{view.node.name}: a key of {PALLET}.{ITEM} without an account")
    return decode_commitments(view.types, entries)


async def read_commitment(view: View, netuid: int, hotkey: PublicKey) -> HotkeyCommitment | None:
    """Return the commitment of this hotkey, None when it has none."""
    value = await view.storage(PALLET, ITEM, netuid, hotkey)
    return None if value is None else _commitment(hotkey, ss58.encode(hotkey), value)


async def _demand_subnet(view: View, netuid: int) -> None:
    if not view.types.has_storage(SUBTENSOR, SUBNETS):
        return
    try:
        there = await view.storage(SUBTENSOR, SUBNETS, netuid)
    except CallNotComposable:
        there = False
    if not there:
        raise SubnetUnknown(netuid)


def decode_commitments(types: RuntimeTypes, entries: list[tuple[str, str]]) -> list[HotkeyCommitment]:
    """Decode keys and values in hex, as storage gives them; an entry that cannot be read says so in `kind`."""
    try:
        pairs = types.changes(PALLET, ITEM, entries, 1)
    except AnswerMalformed:
        return [_alone(types, entry) for entry in entries]
    if len(pairs) != len(entries):
        return [_alone(types, entry) for entry in entries]
    return [
        _commitment(_account(key), str(address), value)
        for (key, _), (address, value) in zip(entries, pairs, strict=True)
    ]


def _alone(types: RuntimeTypes, entry: tuple[str, str]) -> HotkeyCommitment:
    account = _account(entry[0])
    address = ss58.encode(account)
    try:
        ((_, value),) = types.changes(PALLET, ITEM, [entry], 1)
    except AnswerMalformed as error:
        return HotkeyCommitment(account, address, None, None, f"unreadable: {error}")
    return _commitment(account, address, value)


class _Info(msgspec.Struct):
    fields: list[Value]


class _Registration(msgspec.Struct):
    block: int
    info: _Info


def _commitment(hotkey: PublicKey, address: str, value: Value) -> HotkeyCommitment:
    try:
        registration = wire.convert(value, _Registration)
    except msgspec.ValidationError as error:
        return HotkeyCommitment(hotkey, address, None, None, f"unreadable: {error}")
    match registration.info.fields:
        case []:
            return HotkeyCommitment(hotkey, address, registration.block, None, "no field")
        case [str(name), *_]:
            return HotkeyCommitment(hotkey, address, registration.block, None, name)
        case [{**field}, *_] if len(field) == 1:
            ((variant, held),) = field.items()
            raw = str(variant).startswith(("Raw", "BigRaw"))
            return HotkeyCommitment(hotkey, address, registration.block, _payload(held) if raw else None, str(variant))
        case _:
            return HotkeyCommitment(hotkey, address, registration.block, None, "of no known form")


def _payload(held: Value) -> bytes | None:
    match held:
        case str() if held.startswith("0x"):
            try:
                return bytes.fromhex(held[2:])
            except ValueError:
                return None
        case str():
            return held.encode()
        case list():
            try:
                return bytes(held)
            except (ValueError, TypeError):
                return None
        case _:
            return None


def _account(key: str) -> PublicKey:
    """Return the account that ends a key of the map."""
    return bytes.fromhex(key[-64:])
