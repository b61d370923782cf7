"""The messages of transactions: field numbers from the protocol's own definitions."""

from typing import Annotated, Final

import msgspec

from tests.doubles.akash.wire import F


class Message(msgspec.Struct, frozen=True):
    """A message type of the wire."""


class AnyValue(Message, frozen=True):
    type_url: Annotated[str, F(1)] = ""
    value: Annotated[bytes, F(2)] = b""


class Coin(Message, frozen=True):
    denom: Annotated[str, F(1)] = ""
    amount: Annotated[str, F(2)] = ""


class Duration(Message, frozen=True):
    seconds: Annotated[int, F(1)] = 0
    nanos: Annotated[int, F(2)] = 0


class Timestamp(Message, frozen=True):
    seconds: Annotated[int, F(1)] = 0
    nanos: Annotated[int, F(2)] = 0


# --------------------------------------------------------------------------------------------- the envelope


class TxRaw(Message, frozen=True):
    body_bytes: Annotated[bytes, F(1)] = b""
    auth_info_bytes: Annotated[bytes, F(2)] = b""
    signatures: Annotated[tuple[bytes, ...], F(3)] = ()


class TxBody(Message, frozen=True):
    messages: Annotated[tuple[AnyValue, ...], F(1)] = ()
    memo: Annotated[str, F(2)] = ""
    timeout_height: Annotated[int, F(3)] = 0
    unordered: Annotated[bool, F(4)] = False
    timeout_timestamp: Annotated[Timestamp | None, F(5)] = None


class Single(Message, frozen=True):
    mode: Annotated[int, F(1)] = 0


class ModeInfo(Message, frozen=True):
    single: Annotated[Single | None, F(1)] = None


class PubKey(Message, frozen=True):
    key: Annotated[bytes, F(1)] = b""


class SignerInfo(Message, frozen=True):
    public_key: Annotated[AnyValue | None, F(1)] = None
    mode_info: Annotated[ModeInfo | None, F(2)] = None
    sequence: Annotated[int, F(3)] = 0


class Fee(Message, frozen=True):
    amount: Annotated[tuple[Coin, ...], F(1)] = ()
    gas_limit: Annotated[int, F(2)] = 0
    payer: Annotated[str, F(3)] = ""
    granter: Annotated[str, F(4)] = ""


class AuthInfo(Message, frozen=True):
    signer_infos: Annotated[tuple[SignerInfo, ...], F(1)] = ()
    fee: Annotated[Fee | None, F(2)] = None


class SignDoc(Message, frozen=True):
    body_bytes: Annotated[bytes, F(1)] = b""
    auth_info_bytes: Annotated[bytes, F(2)] = b""
    chain_id: Annotated[str, F(3)] = ""
    account_number: Annotated[int, F(4)] = 0


# -------------------------------------------------------------------------------------------- deployments


class DeploymentId(Message, frozen=True):
    owner: Annotated[str, F(1)] = ""
    dseq: Annotated[int, F(2)] = 0


class SignedBy(Message, frozen=True):
    all_of: Annotated[tuple[str, ...], F(1)] = ()
    any_of: Annotated[tuple[str, ...], F(2)] = ()


class Attribute(Message, frozen=True):
    key: Annotated[str, F(1)] = ""
    value: Annotated[str, F(2)] = ""


class Requirements(Message, frozen=True):
    signed_by: Annotated[SignedBy | None, F(1)] = None
    attributes: Annotated[tuple[Attribute, ...], F(2)] = ()


class Amount(Message, frozen=True):
    val: Annotated[bytes, F(1)] = b""


class Cpu(Message, frozen=True):
    units: Annotated[Amount | None, F(1)] = None
    attributes: Annotated[tuple[Attribute, ...], F(2)] = ()


class Memory(Message, frozen=True):
    quantity: Annotated[Amount | None, F(1)] = None
    attributes: Annotated[tuple[Attribute, ...], F(2)] = ()


class Storage(Message, frozen=True):
    name: Annotated[str, F(1)] = ""
    quantity: Annotated[Amount | None, F(2)] = None
    attributes: Annotated[tuple[Attribute, ...], F(3)] = ()


class Gpu(Message, frozen=True):
    units: Annotated[Amount | None, F(1)] = None
    attributes: Annotated[tuple[Attribute, ...], F(2)] = ()


class Endpoint(Message, frozen=True):
    kind: Annotated[int, F(1)] = 0
    sequence_number: Annotated[int, F(2)] = 0


class Resources(Message, frozen=True):
    id: Annotated[int, F(1)] = 0
    cpu: Annotated[Cpu | None, F(2)] = None
    memory: Annotated[Memory | None, F(3)] = None
    storage: Annotated[tuple[Storage, ...], F(4)] = ()
    gpu: Annotated[Gpu | None, F(5)] = None
    endpoints: Annotated[tuple[Endpoint, ...], F(6)] = ()


class ResourceUnit(Message, frozen=True):
    resource: Annotated[Resources | None, F(1)] = None
    count: Annotated[int, F(2)] = 0
    price: Annotated[Coin | None, F(3)] = None
    """Of each block; the amount is a decimal times 10^18."""


class GroupSpec(Message, frozen=True):
    name: Annotated[str, F(1)] = ""
    requirements: Annotated[Requirements | None, F(2)] = None
    resources: Annotated[tuple[ResourceUnit, ...], F(3)] = ()


class Deposit(Message, frozen=True):
    amount: Annotated[Coin | None, F(1)] = None
    sources: Annotated[tuple[int, ...], F(5)] = ()


class Reclamation(Message, frozen=True):
    min_window: Annotated[Duration | None, F(1)] = None


class CreateDeployment(Message, frozen=True):
    id: Annotated[DeploymentId | None, F(1)] = None
    groups: Annotated[tuple[GroupSpec, ...], F(2)] = ()
    hash: Annotated[bytes, F(3)] = b""
    deposit: Annotated[Deposit | None, F(4)] = None
    reclamation: Annotated[Reclamation | None, F(5)] = None


class CloseDeployment(Message, frozen=True):
    id: Annotated[DeploymentId | None, F(1)] = None


class UpdateDeployment(Message, frozen=True):
    id: Annotated[DeploymentId | None, F(1)] = None
    hash: Annotated[bytes, F(3)] = b""


# ------------------------------------------------------------------------------------------------- market


class BidId(Message, frozen=True):
    owner: Annotated[str, F(1)] = ""
    dseq: Annotated[int, F(2)] = 0
    gseq: Annotated[int, F(3)] = 0
    oseq: Annotated[int, F(4)] = 0
    provider: Annotated[str, F(5)] = ""
    bseq: Annotated[int, F(6)] = 0


class CreateLease(Message, frozen=True):
    bid_id: Annotated[BidId | None, F(1)] = None


class CloseLease(Message, frozen=True):
    id: Annotated[BidId | None, F(1)] = None
    reason: Annotated[int, F(2)] = 0


# ---------------------------------------------------------------------------------------- escrow, minting, bank


class EscrowId(Message, frozen=True):
    scope: Annotated[int, F(1)] = 0
    xid: Annotated[str, F(2)] = ""


class AccountDeposit(Message, frozen=True):
    signer: Annotated[str, F(1)] = ""
    id: Annotated[EscrowId | None, F(2)] = None
    deposit: Annotated[Deposit | None, F(3)] = None


class MintAct(Message, frozen=True):
    owner: Annotated[str, F(1)] = ""
    to: Annotated[str, F(2)] = ""
    coins_to_burn: Annotated[Coin | None, F(3)] = None


class LedgerRecordId(Message, frozen=True):
    denom: Annotated[str, F(1)] = ""
    to_denom: Annotated[str, F(2)] = ""
    source: Annotated[str, F(3)] = ""
    height: Annotated[int, F(4)] = 0
    sequence: Annotated[int, F(5)] = 0


class MintActResponse(Message, frozen=True):
    id: Annotated[LedgerRecordId | None, F(1)] = None
    status: Annotated[int, F(2)] = 0


class Empty(Message, frozen=True):
    """The response of a message that answers nothing."""


class TxMsgData(Message, frozen=True):
    msg_responses: Annotated[tuple[AnyValue, ...], F(2)] = ()


class Send(Message, frozen=True):
    from_address: Annotated[str, F(1)] = ""
    to_address: Annotated[str, F(2)] = ""
    amount: Annotated[tuple[Coin, ...], F(3)] = ()


TYPES: Final[dict[str, type[Message]]] = {
    "/akash.deployment.v1beta4.MsgCreateDeployment": CreateDeployment,
    "/akash.deployment.v1beta4.MsgCloseDeployment": CloseDeployment,
    "/akash.deployment.v1beta4.MsgUpdateDeployment": UpdateDeployment,
    "/akash.market.v1beta5.MsgCreateLease": CreateLease,
    "/akash.market.v1beta5.MsgCloseLease": CloseLease,
    "/akash.escrow.v1.MsgAccountDeposit": AccountDeposit,
    "/akash.bme.v1.MsgMintACT": MintAct,
    "/cosmos.bank.v1beta1.MsgSend": Send,
}
"""What the chain takes; any other type is refused."""


def signer(message: Message) -> str:
    """Return the address that must have signed; empty where the message names none."""
    match message:
        case CreateDeployment(id=id_) | CloseDeployment(id=id_) | UpdateDeployment(id=id_):
            return id_.owner if id_ else ""
        case CreateLease(bid_id=bid):
            return bid.owner if bid else ""
        case CloseLease(id=lease):
            return lease.owner if lease else ""
        case AccountDeposit(signer=address) | MintAct(owner=address) | Send(from_address=address):
            return address
        case _:
            return ""
