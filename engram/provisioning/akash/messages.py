"""Messages of the Akash chain that are sent here; the numbers are those of their .proto files.

Source: akash-network/chain-sdk. Which versions of the chain's modules are spoken is in `versions.py`.
"""

import enum
from typing import Annotated, Final, TypeAlias

import msgspec

from engram.provisioning.akash import versions
from engram.provisioning.akash.cosmos import Coin, Duration, PackedMessage
from engram.provisioning.akash.errors import UnknownType
from engram.provisioning.akash.protobuf import Uint32, decode, encode, read
from engram.provisioning.akash.resources import GroupSpec


class DeploymentID(msgspec.Struct, frozen=True):
    """A deployment: its owner's address and the number that the owner has given it."""

    owner: Annotated[str, 1] = ""
    dseq: Annotated[int, 2] = 0


class BidID(msgspec.Struct, frozen=True):
    """A bid of a provider for an order; the lease that it becomes has the same."""

    owner: Annotated[str, 1] = ""
    dseq: Annotated[int, 2] = 0
    gseq: Annotated[Uint32, 3] = 0
    oseq: Annotated[Uint32, 4] = 0
    provider: Annotated[str, 5] = ""
    bseq: Annotated[Uint32, 6] = 0


class Source(enum.IntEnum):
    """Where a deposit comes from."""

    INVALID = 0
    BALANCE = 1
    GRANT = 2


class Deposit(msgspec.Struct, frozen=True):
    """Money for an escrow."""

    amount: Annotated[Coin, 1] = Coin()
    sources: Annotated[tuple[Source, ...], 5] = (Source.BALANCE,)


class Reclamation(msgspec.Struct, frozen=True):
    """The notice that a provider gives before it takes its machine back."""

    min_window: Annotated[Duration, 1] = Duration()


class CreateDeployment(msgspec.Struct, frozen=True):
    """Open a deployment: its groups, the hash of its manifest (32 bytes) and the money in its escrow."""

    id: Annotated[DeploymentID, 1] = DeploymentID()
    groups: Annotated[tuple[GroupSpec, ...], 2] = ()
    hash: Annotated[bytes, 3] = b""
    deposit: Annotated[Deposit, 4] = Deposit()
    reclamation: Annotated[Reclamation | None, 5] = None


class UpdateDeployment(msgspec.Struct, frozen=True):
    """Announce the hash of another manifest for the same groups."""

    id: Annotated[DeploymentID, 1] = DeploymentID()
    hash: Annotated[bytes, 3] = b""


class CloseDeployment(msgspec.Struct, frozen=True):
    """End a deployment with all its leases; the rest of the escrow comes back."""

    id: Annotated[DeploymentID, 1] = DeploymentID()


class CreateLease(msgspec.Struct, frozen=True):
    """Take a bid."""

    bid_id: Annotated[BidID, 1] = BidID()


class LeaseCloseReason(enum.IntEnum):
    """Why a lease is closed; the others are a provider's to give."""

    INVALID = 0
    OWNER = 1


class CloseLease(msgspec.Struct, frozen=True):
    """End a lease; the deployment stays open and asks for bids again."""

    id: Annotated[BidID, 1] = BidID()
    reason: Annotated[LeaseCloseReason, 2] = LeaseCloseReason.OWNER


class EscrowScope(enum.IntEnum):
    """What an escrow account pays for."""

    INVALID = 0
    DEPLOYMENT = 1
    BID = 2


class EscrowID(msgspec.Struct, frozen=True):
    """An escrow account; `xid` of a deployment's is `owner/dseq`."""

    scope: Annotated[EscrowScope, 1] = EscrowScope.INVALID
    xid: Annotated[str, 2] = ""


class AccountDeposit(msgspec.Struct, frozen=True):
    """Put money into an escrow."""

    signer: Annotated[str, 1] = ""
    id: Annotated[EscrowID, 2] = EscrowID()
    deposit: Annotated[Deposit, 3] = Deposit()


class MintACT(msgspec.Struct, frozen=True):
    """Burn uakt for uact, which `to` gets at the end of an epoch, or not at all: follow the record."""

    owner: Annotated[str, 1] = ""
    to: Annotated[str, 2] = ""
    coins_to_burn: Annotated[Coin, 3] = Coin()


class LedgerRecordID(msgspec.Struct, frozen=True):
    """The chain's record of a mint, by which it is followed."""

    denom: Annotated[str, 1] = ""
    to_denom: Annotated[str, 2] = ""
    source: Annotated[str, 3] = ""
    height: Annotated[int, 4] = 0
    sequence: Annotated[int, 5] = 0


class MintACTResponse(msgspec.Struct, frozen=True):
    """The answer to MintACT: its record, and how that stood then (1 pending, 2 executed)."""

    id: Annotated[LedgerRecordID, 1] = LedgerRecordID()
    status: Annotated[Uint32, 2] = 0


Message: TypeAlias = (
    CreateDeployment | UpdateDeployment | CloseDeployment | CreateLease | CloseLease | AccountDeposit | MintACT
)

TYPE_URLS: Final[dict[type[msgspec.Struct], str]] = {
    CreateDeployment: f"/akash.deployment.{versions.DEPLOYMENT}.MsgCreateDeployment",
    UpdateDeployment: f"/akash.deployment.{versions.DEPLOYMENT}.MsgUpdateDeployment",
    CloseDeployment: f"/akash.deployment.{versions.DEPLOYMENT}.MsgCloseDeployment",
    CreateLease: f"/akash.market.{versions.MARKET}.MsgCreateLease",
    CloseLease: f"/akash.market.{versions.MARKET}.MsgCloseLease",
    AccountDeposit: f"/akash.escrow.{versions.ESCROW}.MsgAccountDeposit",
    MintACT: f"/akash.bme.{versions.BME}.MsgMintACT",
}
MINT_RESPONSE_URL: Final = f"/akash.bme.{versions.BME}.MsgMintACTResponse"
_TYPES: Final = {url: message for message, url in TYPE_URLS.items()}


def pack(message: Message) -> PackedMessage:
    """Encode a message with the name of its type."""
    return PackedMessage(TYPE_URLS[type(message)], encode(message))


def unpack(packed: PackedMessage) -> Message:
    """Decode a message by the name of its type. Raises MalformedMessage, UnknownType."""
    message = _TYPES.get(packed.type_url)
    if message is None:
        raise UnknownType(f"{packed.type_url!r} is none of the messages that are sent here")
    decoded: Message = decode(packed.value, message)  # type: ignore[assignment]
    return decoded


class _TxMsgData(msgspec.Struct, frozen=True):
    responses: Annotated[tuple[PackedMessage, ...], 2] = ()


def mint_responses(result: bytes) -> tuple[MintACTResponse, ...]:
    """Return the answers to the MintACTs of a transaction, from the `data` of its result. Raises MalformedMessage."""
    responses = read(result, _TxMsgData).responses
    return tuple(read(one.value, MintACTResponse) for one in responses if one.type_url == MINT_RESPONSE_URL)
