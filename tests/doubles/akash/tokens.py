"""Who may do what at a provider: a JSON Web Token signed by the account that owns the lease."""

import base64
import binascii
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any, Final

import jsonschema

from tests.doubles.akash.store import State
from tests.doubles.akash.transaction import verify

SCHEMA: Final = Path(__file__).parents[2] / "data" / "akash" / "jwt-schema.json"
_ALGORITHM: Final = "ES256K"


class Denied(Exception):
    """The token gives no right; the text says why."""


def owner_of(token: str, state: State, now_s: float) -> tuple[str, dict[str, Any]]:
    """Return the account that signed the token, and its claims. Raises Denied."""
    parts = token.split(".")
    if len(parts) != 3:
        raise Denied("token is malformed: token contains an invalid number of segments")
    try:
        header, claims = (json.loads(_decoded(part)) for part in parts[:2])
        signature = _decoded(parts[2])
    except (ValueError, binascii.Error):
        raise Denied("token is malformed") from None
    if not isinstance(header, dict) or header.get("alg") != _ALGORITHM:
        raise Denied("token is unverifiable: signing method is invalid")
    check_claims(claims, now_s)
    issuer = str(claims["iss"])
    account = state.accounts.get(issuer)
    if account is None or not account.public_key:
        raise Denied(f"token is unverifiable: no public key of {issuer} on the chain")
    digest = hashlib.sha256(f"{parts[0]}.{parts[1]}".encode()).digest()
    if not verify(account.public_key, digest, signature):
        raise Denied("token signature is invalid")
    return issuer, claims


def check_claims(claims: Any, now_s: float) -> None:
    """Raise Denied unless the claims follow the schema and the token is good now."""
    error = jsonschema.exceptions.best_match(_validator().iter_errors(claims))
    if error is not None:
        raise Denied(f"token has invalid claims: {error.message}")
    if not claims["nbf"] <= now_s:
        raise Denied("token has invalid claims: token is not valid yet")
    if not now_s < claims["exp"]:
        raise Denied("token has invalid claims: token is expired")
    if claims["iat"] > claims["exp"] or claims["nbf"] > claims["iat"]:
        raise Denied("token has invalid claims: iat must be between nbf and exp")
    permissions = claims["leases"].get("permissions", [])
    if len({each["provider"] for each in permissions}) < len(permissions):
        raise Denied("token has invalid claims: duplicate provider")


def allows(claims: dict[str, Any], scope: str, provider: str, dseq: int) -> bool:
    """Return whether the claims give this scope for a deployment at a provider."""
    leases = claims["leases"]
    if leases["access"] != "granular":
        return _gives(leases, scope)
    for permission in leases["permissions"]:
        if permission["provider"] != provider:
            continue
        if permission["access"] != "granular":
            return _gives(permission, scope)
        return any(each["dseq"] == dseq and scope in each["scope"] for each in permission["deployments"])
    return False


def _gives(access: dict[str, Any], scope: str) -> bool:
    return access["access"] == "full" or scope in access.get("scope", ())


def _decoded(part: str) -> bytes:
    if "=" in part:
        raise ValueError("padded")
    return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)


@cache
def _validator() -> Any:
    return jsonschema.Draft7Validator(json.loads(SCHEMA.read_text()))
