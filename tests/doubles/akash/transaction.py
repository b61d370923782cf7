"""A transaction as the chain reads it: decoded strictly, its signature verified over the document it must be over."""

import hashlib

import coincurve
import msgspec

from tests.doubles.akash import addresses, wire
from tests.doubles.akash.errors import INVALID_PUB_KEY, NO_SIGNATURES, TX_DECODE, UNAUTHORIZED, UNKNOWN_REQUEST, Refused
from tests.doubles.akash.messages import TYPES, AnyValue, AuthInfo, Fee, Message, PubKey, SignDoc, TxBody, TxRaw, signer

PUBKEY_TYPE = "/cosmos.crypto.secp256k1.PubKey"
_DIRECT = 1
_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


class Transaction(msgspec.Struct, frozen=True):
    raw: bytes
    envelope: TxRaw
    body: TxBody
    fee: Fee
    messages: tuple[Message, ...]
    type_urls: tuple[str, ...]
    signer: str
    """The one account that signs."""
    public_key: bytes
    """33 bytes; empty where the account's own is meant."""
    sequence: int
    mode: int

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.raw).hexdigest().upper()

    @property
    def timeout_ns(self) -> int:
        """Unix nanoseconds after which an unordered transaction is refused; 0 where none is named."""
        stamp = self.body.timeout_timestamp
        return stamp.seconds * 10**9 + stamp.nanos if stamp else 0


def decode(raw: bytes) -> Transaction:
    """Read the bytes of a TxRaw. Raises Refused."""
    try:
        envelope = wire.decode(raw, TxRaw)
        body = wire.decode(envelope.body_bytes, TxBody)
        auth = wire.decode(envelope.auth_info_bytes, AuthInfo)
        messages = tuple(_message(each.type_url, each.value) for each in body.messages)
        keys = [_public_key(each.public_key) for each in auth.signer_infos]
    except wire.Malformed as error:
        raise TX_DECODE.error(str(error)) from None
    if not messages:
        raise UNKNOWN_REQUEST.error("must contain at least one message")
    signers = {signer(message) for message in messages}
    if len(signers) != 1 or len(auth.signer_infos) != 1 or auth.fee is None:
        raise UNAUTHORIZED.error(f"wrong number of signers; expected {len(signers)}, got {len(auth.signer_infos)}")
    if not envelope.signatures:
        raise NO_SIGNATURES.error()
    (info,) = auth.signer_infos
    if info.mode_info is None or info.mode_info.single is None:
        raise TX_DECODE.error("a signer info without its mode")
    return Transaction(
        raw=raw,
        envelope=envelope,
        body=body,
        fee=auth.fee,
        messages=messages,
        type_urls=tuple(each.type_url for each in body.messages),
        signer=signers.pop(),
        public_key=keys[0],
        sequence=info.sequence,
        mode=info.mode_info.single.mode,
    )


def _message(type_url: str, value: bytes) -> Message:
    kind = TYPES.get(type_url)
    if kind is None:
        raise wire.Malformed(f"unable to resolve type URL {type_url}")
    return wire.decode(value, kind)


def _public_key(key: AnyValue | None) -> bytes:
    if key is None:
        return b""
    if key.type_url != PUBKEY_TYPE:
        raise wire.Malformed(f"unable to resolve type URL {key.type_url}")
    return wire.decode(key.value, PubKey).key


def check_key(tx: Transaction, known: bytes) -> bytes:
    """Return the public key that must have signed, `known` being the account's on the chain. Raises Refused."""
    key = known or tx.public_key
    if not key or (tx.public_key and tx.public_key != key) or addresses.of_public_key(key) != tx.signer:
        raise INVALID_PUB_KEY.error(f"pubKey does not match signer address {tx.signer} with signer index: 0")
    return key


def check_signature(tx: Transaction, key: bytes, chain_id: str, account_number: int) -> None:
    """Raise Refused unless the one signature is the key's, over this very transaction for this chain and account."""
    document = SignDoc(tx.envelope.body_bytes, tx.envelope.auth_info_bytes, chain_id, account_number)
    signatures = tx.envelope.signatures
    if tx.mode != _DIRECT or len(signatures) != 1 or not _verified(key, document, signatures[0]):
        raise UNAUTHORIZED.error(
            f"signature verification failed; please verify account number ({account_number}), sequence ({tx.sequence})"
            f" and chain-id ({chain_id}): (unable to verify single signer signature)"
        )


def _verified(key: bytes, document: SignDoc, signature: bytes) -> bool:
    return verify(key, hashlib.sha256(wire.encode(document)).digest(), signature)


def verify(key: bytes, digest: bytes, signature: bytes) -> bool:
    """Return whether 64 bytes r||s, s in the lower half, are the key's signature of the digest."""
    if len(signature) != 64 or int.from_bytes(signature[32:], "big") > _HALF_ORDER:
        return False
    try:
        public = coincurve.PublicKey(key)
        encoded = _der(signature[:32]) + _der(signature[32:])
        return bool(public.verify(bytes([0x30, len(encoded)]) + encoded, digest, hasher=None))
    except ValueError:
        return False


def _der(number: bytes) -> bytes:
    stripped = number.lstrip(b"\0") or b"\0"
    content = b"\0" + stripped if stripped[0] & 0x80 else stripped
    return bytes([0x02, len(content)]) + content


__all__ = ["Refused", "Transaction", "check_key", "check_signature", "decode", "verify"]
