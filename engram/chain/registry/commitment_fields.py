"""A hotkey's commitment with all its fields, read and written together, since a commit replaces every one of them."""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from engram import wire
from engram.chain.errors import AnswerMalformed, CallNotComposable, CommitReplaced
from engram.chain.read.commitments import ITEM, PALLET
from engram.chain.read.runtime import RuntimeCall, Value
from engram.chain.read.view import View
from engram.chain.submit.calls import COMMITMENT_BYTES
from engram.chain.submit.sender import Sender
from engram.chain.submit.submit_extrinsic import Included
from engram.hotkeys import Keypair, PublicKey

FIELDS_MOST: Final = 3
"""Fields of a commitment that runtimes take."""

ROOT_PREFIX: Final = b"engram-relay:1:"
"""Begins the field of a relay's root."""


class CommittedFields(msgspec.Struct, frozen=True):
    """What a hotkey has committed. A field that is not Raw is kept as the runtime's types decode it."""

    block: int
    fields: tuple[Value, ...]


class _Info(msgspec.Struct):
    fields: list[Value]


class _Registration(msgspec.Struct):
    block: int
    info: _Info


async def read_fields(view: View, netuid: int, hotkey: PublicKey) -> CommittedFields | None:
    """Return all fields at the view's block, None when there is no commitment. Raises AnswerMalformed."""
    value = await view.storage(PALLET, ITEM, netuid, hotkey)
    if value is None:
        return None
    try:
        held = wire.convert(value, _Registration)
    except msgspec.ValidationError as error:
        raise AnswerMalformed(f"{PALLET}.{ITEM}: {error}") from None
    return CommittedFields(held.block, tuple(held.info.fields))


def raw_field(octets: bytes) -> Value:
    """Return a Raw field. Raises CallNotComposable when it is too long."""
    if len(octets) > COMMITMENT_BYTES:
        raise CallNotComposable(f"a field has at most {COMMITMENT_BYTES} bytes, not {len(octets)}")
    return {f"Raw{len(octets)}": "0x" + octets.hex()}


def octets_of(field: Value) -> bytes | None:
    """Return the bytes of a Raw field; None for any other.

    >>> octets_of({"Raw2": "0x6869"}), octets_of({"Sha256": "0x00"}), octets_of("None")
    (b'hi', None, None)
    """
    if not isinstance(field, dict) or len(field) != 1:
        return None
    ((name, held),) = field.items()
    if not str(name).startswith("Raw") or not isinstance(held, str) or not held.startswith("0x"):
        return None
    return bytes.fromhex(held[2:])


def with_field(
    held: CommittedFields | None, octets: bytes, is_ours: Callable[[bytes], bool], *, leads: bool = False
) -> list[Value]:
    """Return all fields to commit: `octets` in the place of the Raw field that is ours, the others as they are.

    Where none is ours it stands behind the others. With `leads` it stands before all, where readers of endpoints look.
    Raises CallNotComposable when there is no room for it, or it is too long.
    """
    fields = [] if held is None else list(held.fields)
    texts = [octets_of(field) for field in fields]
    place = next((at for at, text in enumerate(texts) if text is not None and is_ours(text)), len(fields))
    del fields[place : place + 1]
    fields.insert(0 if leads else place, raw_field(octets))
    if len(fields) > FIELDS_MOST:
        others = _in_words([] if held is None else held.fields)
        raise CallNotComposable(f"the commitment has {FIELDS_MOST} fields already, no room for one more: {others}")
    return fields


async def commit_fields(sender: Sender, view: View, netuid: int, fields: Sequence[Value], keypair: Keypair) -> Included:
    """Commit these fields in the place of all. Raises CommitReplaced when the block ends with others, as `Sender`."""
    if not 0 < len(fields) <= FIELDS_MOST:
        raise CallNotComposable(f"a commitment has 1 to {FIELDS_MOST} fields, not {len(fields)}")
    call = RuntimeCall(PALLET, "set_commitment", {"netuid": netuid, "info": {"fields": [list(fields)]}})
    done = await sender.send(view, call, keypair)
    held = await sender.read_back(view, done, lambda at: read_fields(at, netuid, keypair.public_key))
    if held is None or held.fields != tuple(fields):
        raise CommitReplaced(done.block.number, "nothing" if held is None else _in_words(held.fields))
    return done


def _in_words(fields: Sequence[Value]) -> str:
    """Return fields for a message: the bytes of Raw ones, others as the runtime's types decode them."""
    texts = [octets_of(field) for field in fields]
    return ", ".join(repr(field if text is None else text) for field, text in zip(fields, texts, strict=True))
