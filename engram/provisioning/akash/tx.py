"""Transactions of the chain: made, signed (SIGN_MODE_DIRECT), hashed and decoded.

The chain takes unordered ones: they bear no sequence, and any number may be in flight at once. A timeout that is unique
for the signer keeps each from being executed twice. Ordered ones, numbered by the account's sequence and sent one after
the other, are the fallback. Source: cosmos-sdk, tx.proto and ADR-070.
"""

import hashlib
from typing import Annotated, Final, Protocol, TypeAlias

import msgspec

from engram.provisioning.akash import versions
from engram.provisioning.akash.cosmos import Coin, PackedMessage, Timestamp
from engram.provisioning.akash.errors import MalformedMessage
from engram.provisioning.akash.messages import Message, pack, unpack
from engram.provisioning.akash.protobuf import decode, encode

MAX_TIMEOUT_S: Final = 600
"""The chain refuses an unordered transaction whose timeout is further ahead."""
PUBLIC_KEY_URL: Final = "/cosmos.crypto.secp256k1.PubKey"
UNSPECIFIED: Final = 0
DIRECT: Final = 1
_NS: Final = 10**9


class TxBody(msgspec.Struct, frozen=True):
    """What is to be done, and until when."""

    messages: Annotated[tuple[PackedMessage, ...], 1] = ()
    memo: Annotated[str, 2] = ""
    timeout_height: Annotated[int, 3] = 0
    unordered: Annotated[bool, 4] = False
    timeout_timestamp: Annotated[Timestamp | None, 5] = None


class PubKey(msgspec.Struct, frozen=True):
    """A secp256k1 key, 33 bytes."""

    key: Annotated[bytes, 1] = b""


class SingleSigner(msgspec.Struct, frozen=True):
    """How the one signer signs: DIRECT, or UNSPECIFIED in a simulation."""

    mode: Annotated[int, 1] = UNSPECIFIED


class ModeInfo(msgspec.Struct, frozen=True):
    """How a signer signs."""

    single: Annotated[SingleSigner, 1] = SingleSigner()


class SignerInfo(msgspec.Struct, frozen=True):
    """Who signs."""

    public_key: Annotated[PackedMessage, 1] = PackedMessage()
    mode_info: Annotated[ModeInfo, 2] = ModeInfo()
    sequence: Annotated[int, 3] = 0


class Fee(msgspec.Struct, frozen=True):
    """What is paid for at most `gas_limit` of gas."""

    amount: Annotated[tuple[Coin, ...], 1] = ()
    gas_limit: Annotated[int, 2] = 0
    payer: Annotated[str, 3] = ""
    granter: Annotated[str, 4] = ""


class AuthInfo(msgspec.Struct, frozen=True):
    """Who signs, and what is paid."""

    signer_infos: Annotated[tuple[SignerInfo, ...], 1] = ()
    fee: Annotated[Fee, 2] = Fee()


class TxRaw(msgspec.Struct, frozen=True):
    """A transaction as it is sent."""

    body_bytes: Annotated[bytes, 1] = b""
    auth_info_bytes: Annotated[bytes, 2] = b""
    signatures: Annotated[tuple[bytes, ...], 3] = ()


class SignDoc(msgspec.Struct, frozen=True):
    """What is signed."""

    body_bytes: Annotated[bytes, 1] = b""
    auth_info_bytes: Annotated[bytes, 2] = b""
    chain_id: Annotated[str, 3] = ""
    account_number: Annotated[int, 4] = 0


# ------------------------------------------------------------------------------------------------------- making


class Unordered(msgspec.Struct, frozen=True):
    """Carried out at most once, before `timeout_ns` (unix time in nanoseconds), which is unique for the signer.

    Raises ValueError for a time before 1970.
    """

    timeout_ns: int

    def __post_init__(self) -> None:
        if self.timeout_ns <= 0:
            raise ValueError(f"the timeout is {self.timeout_ns} ns, which lies before 1970")


class Ordered(msgspec.Struct, frozen=True):
    """Carried out as the signer's transaction number `sequence`, at `timeout_height` at the latest (0: no limit)."""

    sequence: int
    timeout_height: int = 0


Ordering: TypeAlias = Unordered | Ordered


class Account(msgspec.Struct, frozen=True):
    """For which chain and account number it is signed; both are from the chain."""

    number: int
    chain_id: str = versions.CHAIN_ID


class Signer(Protocol):
    """Signs and keeps its key: `account.Signer`, or a double."""

    @property
    def public_key(self) -> bytes:
        """33 bytes."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return r and s (64 bytes, low s) over the message's SHA-256."""
        ...


class SignedTx(msgspec.Struct, frozen=True):
    """A transaction that may be sent as often as wanted: it is carried out once at most."""

    raw: bytes
    hash: str
    """64 upper-case hex digits."""


class DecodedTx(msgspec.Struct, frozen=True):
    """All that a transaction says."""

    body: TxBody
    auth_info: AuthInfo
    messages: tuple[Message, ...]
    signatures: tuple[bytes, ...]
    raw: TxRaw

    @property
    def ordering(self) -> Ordering:
        """How it is kept from being carried out twice. Raises MalformedMessage."""
        body = self.body
        if not body.unordered:
            return Ordered(self.auth_info.signer_infos[0].sequence, body.timeout_height)
        if body.timeout_timestamp is None:
            raise MalformedMessage("the transaction is unordered and has no timeout_timestamp")
        return Unordered(body.timeout_timestamp.seconds * _NS + body.timeout_timestamp.nanos)


def sign(
    wanted: tuple[Message, ...], ordering: Ordering, fee: Fee, account: Account, signer: Signer, memo: str = ""
) -> SignedTx:
    """Make and sign a transaction of these messages, which are carried out all or none."""
    body = encode(_body_of(wanted, ordering, memo))
    auth_info = encode(_auth_info_of(signer.public_key, ordering, DIRECT, fee))
    signature = signer.sign(encode(SignDoc(body, auth_info, account.chain_id, account.number)))
    raw = encode(TxRaw(body, auth_info, (signature,)))
    return SignedTx(raw, hash_of(raw))


def for_simulation(wanted: tuple[Message, ...], ordering: Ordering, public_key: bytes, memo: str = "") -> bytes:
    """Return what the chain simulates to tell the gas: the body that will be sent, no fee, one empty signature.

    The timeout of an unordered one is set anew for what is sent: it is simulated as the chain checks it.
    """
    body = encode(_body_of(wanted, ordering, memo))
    return encode(TxRaw(body, encode(_auth_info_of(public_key, ordering, UNSPECIFIED, Fee())), (b"",)))


def hash_of(raw: bytes) -> str:
    """Return the hash by which the chain finds a transaction: 64 upper-case hex digits.

    >>> hash_of(b"")[:16]
    'E3B0C44298FC1C14'
    """
    return hashlib.sha256(raw).hexdigest().upper()


def fee_of(gas_limit: int, price: str = "0.025", denom: str = "uakt") -> Fee:
    """Return the fee for this gas, rounded up; `price` is decimal text, in the smallest unit for each gas.

    >>> fee_of(400_000).amount[0].amount
    '10000'
    """
    whole, _, fraction = price.partition(".")
    scale = 10 ** len(fraction)
    amount = -(-gas_limit * int(whole + fraction) // scale)
    return Fee((Coin(denom, str(amount)),), gas_limit)


def decode_tx(raw: bytes) -> DecodedTx:
    """Decode a transaction with its messages. Raises MalformedMessage, also for messages that are not sent here."""
    outer = decode(raw, TxRaw)
    body = decode(outer.body_bytes, TxBody)
    auth_info = decode(outer.auth_info_bytes, AuthInfo)
    if not auth_info.signer_infos:
        raise MalformedMessage("the transaction has no signer")
    return DecodedTx(body, auth_info, tuple(map(unpack, body.messages)), outer.signatures, outer)


def sign_bytes_of(decoded: DecodedTx, account: Account) -> bytes:
    """Return the bytes that the signer of this transaction has signed."""
    return encode(SignDoc(decoded.raw.body_bytes, decoded.raw.auth_info_bytes, account.chain_id, account.number))


def _body_of(wanted: tuple[Message, ...], ordering: Ordering, memo: str) -> TxBody:
    packed = tuple(map(pack, wanted))
    if isinstance(ordering, Ordered):
        return TxBody(packed, memo, ordering.timeout_height)
    timeout = Timestamp(*divmod(ordering.timeout_ns, _NS))
    return TxBody(packed, memo, unordered=True, timeout_timestamp=timeout)


def _auth_info_of(public_key: bytes, ordering: Ordering, mode: int, fee: Fee) -> AuthInfo:
    key = PackedMessage(PUBLIC_KEY_URL, encode(PubKey(public_key)))
    sequence = ordering.sequence if isinstance(ordering, Ordered) else 0
    return AuthInfo((SignerInfo(key, ModeInfo(SingleSigner(mode)), sequence),), fee)
