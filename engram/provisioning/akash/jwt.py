"""Tokens by which a provider's gateway knows the owner of a lease: JWT, ES256K, signed with the account's key.

The provider looks up the account's public key on chain; an account that has never sent a transaction has none there.
Source: akash-network/chain-sdk, jwt-schema.json.
"""

import base64
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from engram.provisioning.akash.account import Signer

TTL_S: Final = 30
"""How long a token is valid, as Console has it."""
BACKDATED_S: Final = 5
"""A provider's clock may be this far behind ours."""
MAX_TTL_S: Final = 900
Scope: TypeAlias = Literal["send-manifest", "get-manifest", "logs", "events", "status"]
"""What a token allows. The chain knows others (shell, restart, migrations), which are never asked for here."""
_HEADER: Final = b'{"alg":"ES256K","typ":"JWT"}'


class _Permission(msgspec.Struct, frozen=True):
    provider: str
    access: str
    scope: tuple[Scope, ...]


class _Leases(msgspec.Struct, frozen=True):
    access: str
    permissions: tuple[_Permission, ...]


class _Claims(msgspec.Struct, frozen=True):
    """In the order in which Go writes them."""

    iss: str
    exp: int
    nbf: int
    iat: int
    version: str
    leases: _Leases


def issue(signer: Signer, provider: str, scope: Sequence[Scope], now: float, ttl_s: int = TTL_S) -> str:
    """Return a token for our leases with one provider, and for nothing else; `now` is in unix seconds.

    Raises ValueError for an empty scope or a lifetime outside 1..MAX_TTL_S.
    """
    if not scope or len({*scope}) != len(scope):
        raise ValueError(f"the scope {list(scope)} must name at least one permission, and none twice")
    if not 1 <= ttl_s <= MAX_TTL_S:
        raise ValueError(f"the token's lifetime is {ttl_s} s; it must be 1 to {MAX_TTL_S} s")
    since = int(now) - BACKDATED_S
    leases = _Leases("granular", (_Permission(provider, "scoped", tuple(scope)),))
    return token_of(msgspec.json.encode(_Claims(signer.address, int(now) + ttl_s, since, since, "v1", leases)), signer)


def token_of(claims: bytes, signer: Signer) -> str:
    """Return the token of these claims (JSON), signed."""
    signed = f"{_base64(_HEADER)}.{_base64(claims)}"
    return f"{signed}.{_base64(signer.sign(signed.encode()))}"


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
