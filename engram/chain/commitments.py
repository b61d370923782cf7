"""Reads what hotkeys have committed on a subnet. Whatever stands there is an entry, never an exception."""

from typing import Final

import bittensor_core
import msgspec

from engram.chain.errors import AnswerMalformed
from engram.chain.runtime import RuntimeTypes, Value
from engram.chain.view import View
from engram.hotkeys import PublicKey, ss58

PALLET: Final = "Commitments"
ITEM: Final = "CommitmentOf"


class Commitment(msgspec.Struct, frozen=True):
    """What one hotkey has committed."""

    hotkey: PublicKey
    block: int | None
    """When; None where the entry could not be read."""
    payload: bytes | None
    """The first field's bytes; None when it has none (a hash, a timelock, nothing)."""
    kind: str
    """The field's name in the metadata (`Raw17`, `Sha256`, `TimelockEncrypted` …), or what is wrong."""


async def read_commitments(view: View, netuid: int) -> list[Commitment]:
    """Every commitment of a subnet at the view's block, in the order of the storage keys."""
    entries = await view.entries(PALLET, ITEM, netuid)
    return decode_commitments(view.types, entries)


async def read_commitment(view: View, netuid: int, hotkey: PublicKey) -> Commitment | None:
    """What this hotkey has committed, None when it has not."""
    value = await view.storage(PALLET, ITEM, netuid, hotkey)
    return None if value is None else _commitment(hotkey, value)


def decode_commitments(types: RuntimeTypes, entries: list[tuple[str, str]]) -> list[Commitment]:
    """Keys and values in hex, as storage gives them; an entry that cannot be read says so in `kind`."""
    try:
        pairs = types.changes(PALLET, ITEM, entries, 1)
    except AnswerMalformed:
        return [_alone(types, entry) for entry in entries]
    return [_commitment(_hotkey(account), value) for account, value in pairs]


def _alone(types: RuntimeTypes, entry: tuple[str, str]) -> Commitment:
    account = bytes.fromhex(entry[0][2:])[-32:]
    try:
        ((_, value),) = types.changes(PALLET, ITEM, [entry], 1)
    except AnswerMalformed as error:
        return Commitment(account, None, None, f"unreadable: {error}")
    return _commitment(account, value)


class _Info(msgspec.Struct):
    fields: list[Value]


class _Registration(msgspec.Struct):
    block: int
    info: _Info


def _commitment(hotkey: PublicKey, value: Value) -> Commitment:
    try:
        registration = msgspec.convert(value, _Registration)
    except msgspec.ValidationError as error:
        return Commitment(hotkey, None, None, f"unreadable: {error}")
    match registration.info.fields:
        case []:
            return Commitment(hotkey, registration.block, None, "no field")
        case [str(name), *_]:
            return Commitment(hotkey, registration.block, None, name)
        case [{**field}, *_] if len(field) == 1:
            ((variant, held),) = field.items()
            raw = str(variant).startswith(("Raw", "BigRaw"))
            return Commitment(hotkey, registration.block, _payload(held) if raw else None, str(variant))
        case _:
            return Commitment(hotkey, registration.block, None, "of no known form")


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


def _hotkey(account: Value) -> PublicKey:
    if isinstance(account, str):
        return bytes(bittensor_core.decode_ss58(account))
    raise AnswerMalformed(f"{PALLET}.{ITEM}: a key of no account")


def address_of(commitment: Commitment) -> str:
    """The hotkey as the chain's tools write it."""
    return ss58.encode(commitment.hotkey)
