"""The hot key that sends refunds: read from a file that only its owner may read, never shown."""

import contextlib
import os
import re
import secrets
from pathlib import Path
from typing import Final, final

import msgspec
from coincurve import PrivateKey

from engram import files
from engram.payments import x402
from engram.payments.eip712 import address_of, sign
from engram.payments.errors import UnusableRefundKey
from engram.payments.keccak import checksummed
from engram.payments.model import Authorization, Refund, Requirements
from engram.payments.networks import Network

_SECRET: Final = re.compile(r"(?:0x)?([0-9a-fA-F]{64})", re.ASCII)


class SignedRefund(msgspec.Struct, frozen=True):
    """A refund's authorization, ready to be sent."""

    sender: bytes
    payload: bytes
    requirements: bytes
    valid_before: int

    def __repr__(self) -> str:
        return f"SignedRefund(sender=0x{self.sender.hex()}, valid_before={self.valid_before})"


@final
class RefundKey:
    """Signs refunds. Make it with `read` or `read_or_generate`."""

    def __init__(self, secret: bytes) -> None:
        """`secret` is 32 bytes. Raises UnusableRefundKey when it is no key."""
        try:
            self._key = PrivateKey(secret)
        except ValueError:
            raise UnusableRefundKey(
                "the refund key is not a secp256k1 key: it is zero, or not below the order of the curve"
            ) from None
        self.address: Final = address_of(self._key.public_key)
        """20 bytes."""

    def __repr__(self) -> str:
        return f"RefundKey({checksummed(self.address)})"

    def sign(self, refund: Refund, network: Network, now: float, valid_s: int) -> SignedRefund:
        """Sign the refund as it was frozen, good for `valid_s` from `now` (unix seconds)."""
        wanted = Requirements(network=network, amount=refund.amount, pay_to=refund.address, max_timeout_s=valid_s)
        authorization = Authorization(
            payer=self.address,
            pay_to=refund.address,
            value=refund.amount,
            valid_after=0,
            valid_before=int(now) + valid_s,
            nonce=refund.nonce,
        )
        signature = sign(authorization, network, self._key)
        return SignedRefund(
            sender=self.address,
            payload=msgspec.json.encode(x402.payload_json(authorization, signature, wanted)),
            requirements=msgspec.json.encode(x402.requirements_json(wanted)),
            valid_before=authorization.valid_before,
        )


def read(path: Path) -> RefundKey:
    """Return the key in the file: 64 hex digits. Raises UnusableRefundKey, also when others may read the file."""
    try:
        if path.stat().st_mode & 0o077:
            raise UnusableRefundKey(f"{path} can be read by others: chmod 600 it")
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableRefundKey(f"the refund key in {path} cannot be read: {type(error).__name__}") from None
    found = _SECRET.fullmatch(text)
    if found is None:
        raise UnusableRefundKey(f"{path} must hold the refund key as 64 hex digits, and it holds something else")
    return RefundKey(bytes.fromhex(found[1]))


def read_or_generate(path: Path) -> RefundKey:
    """Return the key in the file, made and written (mode 0600) when there is none. Raises UnusableRefundKey."""
    if not path.exists():
        with contextlib.suppress(FileExistsError):  # another process made it in between: that one holds
            files.put(path, f"{secrets.token_bytes(32).hex()}\n".encode(), os.link)
    return read(path)
