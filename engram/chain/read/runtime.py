"""Storage, calls, events and errors of a runtime, by its own metadata (bittensor-core).

As in codec.py, no layout is written down here: hashers, types, indices and signed extensions come from the metadata.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias, final

import bittensor_core
import msgspec

from engram.chain.errors import AnswerMalformed, CallNotComposable
from engram.chain.read.codec import SS58_PREFIX, unwrap_metadata

ERA_BLOCKS = 64
"""Number of blocks, after the finalized one it was signed at, that may include an extrinsic."""
SR25519 = 1
SUBTENSOR = "SubtensorModule"
"""The pallet that holds the subnets."""

Value: TypeAlias = object
"""A decoded SCALE value: numbers, texts, lists and dicts by the metadata's own names."""


class RuntimeCall(msgspec.Struct, frozen=True):
    """One call of a pallet, by the metadata's own names."""

    pallet: str
    function: str
    arguments: dict[str, Value]


class RuntimeEvent(msgspec.Struct, frozen=True):
    """One event of a block. `extrinsic` is the index of the extrinsic that caused it, None when none did."""

    pallet: str
    name: str
    extrinsic: int | None
    attributes: Value


class Era(msgspec.Struct, frozen=True):
    """The blocks that may include an extrinsic: ERA_BLOCKS of them from `birth` on."""

    birth: int
    birth_hash: bytes

    @property
    def last_block(self) -> int:
        """Number of the last block that may include it."""
        return self.birth + ERA_BLOCKS

    @property
    def described(self) -> dict[str, int]:
        """As both codecs take it."""
        return {"period": ERA_BLOCKS, "current": self.birth}


class SignedExtrinsic(msgspec.Struct, frozen=True):
    """A signed extrinsic as it goes to the endpoint."""

    octets: bytes
    hash: bytes


@final
class RuntimeTypes:
    """The types of one runtime version, those of the metagraph excepted.

    Raises AnswerMalformed when `metadata` is not what `Metadata_metadata_at_version(15)` answers.
    """

    def __init__(self, metadata: bytes, spec_version: int, transaction_version: int) -> None:
        self.spec_version = spec_version
        self._calls: dict[str, set[str]] = {}
        try:
            self.core = bittensor_core.Runtime(
                unwrap_metadata(metadata), spec_version, transaction_version, SS58_PREFIX
            )
        except ValueError as error:
            raise AnswerMalformed(f"metadata of runtime {spec_version}: {error}") from error
        # `core` is bittensor-core's own view: doubles of the chain encode by it what a runtime would.

    # storage

    def storage_key(self, pallet: str, item: str, *parameters: Value) -> bytes:
        """Key of a storage item, or the prefix of those that begin with these parameters. Raises CallNotComposable."""
        try:
            key: bytes = self.core.storage_key(pallet, item, list(parameters))
        except (KeyError, ValueError, OverflowError, TypeError) as error:
            raise self._missing(f"{pallet}.{item}", error) from error
        return key

    def has_storage(self, pallet: str, item: str) -> bool:
        """Return whether the runtime keeps such an item."""
        try:
            self.core.storage_entry(pallet, item)
        except (KeyError, ValueError):
            return False
        return True

    def storage_value(self, pallet: str, item: str, octets: bytes | None) -> Value:
        """Decode an item's value; `octets` None gives the default of the metadata, or None for an optional item."""
        try:
            entry = self.core.storage_entry(pallet, item)
        except (KeyError, ValueError) as error:
            raise self._missing(f"{pallet}.{item}", error) from error
        if octets is None:
            if entry.modifier == "Optional":
                return None
            octets = bytes(entry.default_bytes)
        return self.decode(entry.value_type, octets)

    def encode_storage(self, pallet: str, item: str, value: Value) -> bytes:
        """Return the octets of a value of this item."""
        octets: bytes = self.core.encode(self.core.storage_entry(pallet, item).value_type, value)
        return octets

    def decode(self, type_name: str, octets: bytes) -> Value:
        """Decode one value. Raises AnswerMalformed when the octets are not exactly one value of the type."""
        try:
            value: Value = self.core.decode(type_name, octets)
        except ValueError as error:
            raise AnswerMalformed(f"SCALE bytes: {error}") from error
        return value

    # calls

    def has_call(self, pallet: str, function: str) -> bool:
        """Return whether the runtime has such a call."""
        if not self._calls:
            described = self.core.metadata_ir()
            pallets = msgspec.json.decode(described) if isinstance(described, str) else described
            self._calls = {one["name"]: {call["name"] for call in one["calls"]} for one in pallets["pallets"]}
        return function in self._calls.get(pallet, ())

    def compose(self, call: RuntimeCall) -> bytes:
        """Return the octets of a call. Raises CallNotComposable, naming the call."""
        try:
            octets: bytes = self.core.compose_call(call.pallet, call.function, call.arguments)
        except (KeyError, ValueError, OverflowError, TypeError) as error:
            raise self._missing(f"{call.pallet}.{call.function}", error) from error
        return octets

    def signature_payload(self, call: bytes, nonce: int, era: Era, genesis: bytes) -> bytes:
        """Return the payload that is signed for this call.

        Raises CallNotComposable when the runtime has a signed extension that the codec does not know.
        """
        try:
            payload: bytes = self.core.signature_payload(
                call,
                era=era.described,
                nonce=nonce,
                tip=0,
                tip_asset_id=None,
                genesis_hash=genesis,
                era_block_hash=era.birth_hash,
            )
        except (KeyError, ValueError, OverflowError, TypeError) as error:
            raise self._missing("what is signed", error) from error
        return payload

    def extrinsic(self, call: bytes, public_key: bytes, signature: bytes, nonce: int, era: Era) -> SignedExtrinsic:
        """Return the whole extrinsic and its hash. Raises CallNotComposable."""
        try:
            octets, digest = self.core.encode_signed_extrinsic(
                call,
                public_key=public_key,
                signature=signature,
                signature_version=SR25519,
                era=era.described,
                nonce=nonce,
                tip=0,
                tip_asset_id=None,
            )
        except (KeyError, ValueError, OverflowError, TypeError) as error:
            raise self._missing("a signed extrinsic", error) from error
        return SignedExtrinsic(bytes(octets), bytes(digest))

    # events

    def events(self, octets: bytes | None) -> tuple[RuntimeEvent, ...]:
        """Return the events of a block (`System.Events`)."""
        records = self.storage_value("System", "Events", octets)
        if not isinstance(records, list):
            raise AnswerMalformed("the events of a block are no list")
        try:
            return tuple(
                RuntimeEvent(one["module_id"], one["event_id"], one["extrinsic_idx"], one["attributes"])
                for one in records
            )
        except (KeyError, TypeError) as error:
            raise AnswerMalformed(f"the events of a block are of no known form: {error}") from error

    def refusal(self, failure: RuntimeEvent) -> tuple[str, str]:
        """Name and explanation of a System.ExtrinsicFailed, by the metadata."""
        error = failure.attributes.get("dispatch_error") if isinstance(failure.attributes, Mapping) else None
        match error:
            case {"Module": {"index": int(index), "error": str(code)}}:
                try:
                    name, docs = self.core.module_error(index, bytes.fromhex(code[2:])[0])
                except (KeyError, ValueError, IndexError):
                    return f"error {code} of pallet {index}", ""
                return str(name), _sentence(docs)
            case {**named} if len(named) == 1:
                ((name, detail),) = named.items()
                return f"{name}.{detail}" if isinstance(detail, str) else str(name), ""
            case _:
                return str(error), ""

    def changes(
        self, pallet: str, item: str, changes: Sequence[tuple[str, str]], fixed: int
    ) -> list[tuple[Value, Value]]:
        """Keys and values of a map, as `state_queryStorageAt` gives them. Raises AnswerMalformed."""
        try:
            pairs: list[tuple[Value, Value]] = self.core.decode_map_changes(pallet, item, list(changes), fixed)
        except ValueError as error:
            raise AnswerMalformed(f"{pallet}.{item}: {error}") from error
        return pairs

    def _missing(self, what: str, error: Exception) -> CallNotComposable:
        return CallNotComposable(f"runtime {self.spec_version}: {what}: {error}")


def _sentence(docs: Sequence[str]) -> str:
    return " ".join(line.strip() for line in docs if line.strip())
