"""Types that all messages of a Cosmos chain share. Amounts are decimal text, in the smallest unit (`uakt`, `uact`)."""

from typing import Annotated, Final

import msgspec

from engram.provisioning.akash.protobuf import Uint32

DECIMALS: Final = 10**18
"""A DecCoin on the wire counts in 1/DECIMALS of the smallest unit."""


class Coin(msgspec.Struct, frozen=True):
    """An amount in the smallest unit."""

    denom: Annotated[str, 1] = ""
    amount: Annotated[str, 2] = ""


class DecCoin(msgspec.Struct, frozen=True):
    """A price in the smallest unit, with 18 decimals: `amount` is the whole number of 10^-18."""

    denom: Annotated[str, 1] = ""
    amount: Annotated[str, 2] = ""


class Duration(msgspec.Struct, frozen=True):
    """A span of time, never negative here."""

    seconds: Annotated[int, 1] = 0
    nanos: Annotated[Uint32, 2] = 0


class Timestamp(msgspec.Struct, frozen=True):
    """A moment, in unix time."""

    seconds: Annotated[int, 1] = 0
    nanos: Annotated[Uint32, 2] = 0


class PackedMessage(msgspec.Struct, frozen=True):
    """A message with the name of its type (google.protobuf.Any)."""

    type_url: Annotated[str, 1] = ""
    value: Annotated[bytes, 2] = b""
