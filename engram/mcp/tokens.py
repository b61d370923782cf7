"""Bearer tokens that a hotkey signed: what a client that cannot sign shows instead.

    engram-mcp-1.{claims}.{signature}        both parts base64url without padding

`claims` is JSON; signed is `engram-mcp-1.{claims}`, by sr25519. A token is for one audience (the host of the server's
URL, with its port where the URL has one), for some scopes, until it expires or is revoked by its id. One that names the
sha256 of a body is for that one request, and is taken once: `engram mcp connect` makes one for each.
"""

import base64
import binascii
import re
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from engram import wire
from engram.hotkeys import Keypair, PublicKey, ss58, verify
from engram.hotkeys.errors import MalformedHotkey
from engram.mcp.model import Scope

PREFIX: Final = "engram-mcp-1"
MAX_S: Final = 90 * 86_400
"""The longest life of a token."""
REQUEST_S: Final = 60
"""The longest life of a token for one request."""
SKEW_S: Final = 30
"""How far ahead of ours the clock of a signer may be."""
MAX_CHARS: Final = 4_096
_FORM: Final = re.compile(rf"{PREFIX}\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{{86}})")


class TokenRefused(Exception):
    """The token is not valid here; the message says why."""


class Claims(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a token says. Times are unix seconds."""

    key: Annotated[str, Meta(max_length=64)]
    """ss58 of the hotkey that signed."""
    aud: Annotated[str, Meta(min_length=1, max_length=300)]
    scope: tuple[Scope | Literal["revoke"], ...]
    iat: Annotated[int, Meta(ge=0, lt=2**53)]
    exp: Annotated[int, Meta(ge=0, lt=2**53)]
    id: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    namespaces: Annotated[tuple[str, ...], Meta(max_length=32)] | None = None
    """The only namespaces that it opens; left out: all that the key has."""
    body: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")] | None = None
    """sha256 of the one body that it goes with."""


def mint(keypair: Keypair, claims: Claims) -> str:
    """Return the token. Raises ValueError for claims of another key, or that no server would take."""
    if claims.key != keypair.ss58:
        raise ValueError(f"the claims are of {claims.key}, the key is {keypair.ss58}")
    longest = REQUEST_S if claims.body is not None else MAX_S
    if not 0 < claims.exp - claims.iat <= longest:
        raise ValueError(f"a token lives 1 to {longest} seconds, not {claims.exp - claims.iat}")
    signed = f"{PREFIX}.{_text(msgspec.json.encode(claims))}"
    return f"{signed}.{_text(keypair.sign(signed.encode('ascii')))}"


def read(token: str, *, audiences: frozenset[str], now: float) -> tuple[PublicKey, Claims]:
    """Return who signed a token and what it says, the signature checked last. Raises TokenRefused."""
    claims, key, signature = _parts(token)
    if claims.aud.lower() not in audiences:
        raise TokenRefused(f"the token is for {claims.aud}, this is {' or '.join(sorted(audiences))}")
    if now >= claims.exp:
        raise TokenRefused("the token has expired")
    if claims.iat > now + SKEW_S:
        raise TokenRefused("the token is from the future: set the clock of the machine that made it")
    if not 0 < claims.exp - claims.iat <= (REQUEST_S if claims.body is not None else MAX_S):
        raise TokenRefused("the token lives longer than a token may")
    if not verify(key, token.rpartition(".")[0].encode("ascii"), signature):
        raise TokenRefused("the token is not signed by the key that it names")
    return key, claims


def claims_of(token: str) -> Claims:
    """Return what a token says, without checking whether it is valid anywhere. Raises TokenRefused."""
    return _parts(token)[0]


def _parts(token: str) -> tuple[Claims, PublicKey, bytes]:
    found = _FORM.fullmatch(token) if len(token) <= MAX_CHARS else None
    if found is None:
        raise TokenRefused(f"a token has the form {PREFIX}.CLAIMS.SIGNATURE; make one with engram mcp token")
    try:
        claims = wire.decode(_bytes(found[1]), Claims)
        return claims, ss58.decode(claims.key), _bytes(found[2])
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, MalformedHotkey):
        raise TokenRefused("the token's claims cannot be read") from None


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
