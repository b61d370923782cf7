"""AWS Signature Version 4: the signed headers of one request to S3 or what speaks like it.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

import msgspec

_ALGORITHM: Final = "AWS4-HMAC-SHA256"


class Credentials(msgspec.Struct, frozen=True):
    """What S3 knows a caller by."""

    access_key: str
    secret_key: str
    region: str
    session_token: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.access_key}, {self.region})"


def escaped(text: str, *, safe: str = "") -> str:
    """Return text percent-encoded the way signatures are made over.

    >>> escaped("a b/c"), escaped("a b/c", safe="/")
    ('a%20b%2Fc', 'a%20b/c')
    """
    return quote(text, safe=f"-_.~{safe}")


def query_string(query: Mapping[str, str]) -> str:
    """Return a query in canonical order.

    >>> query_string({"prefix": "a/", "list-type": "2"})
    'list-type=2&prefix=a%2F'
    """
    return "&".join(f"{escaped(name)}={escaped(value)}" for name, value in sorted(query.items()))


def signed_headers(
    credentials: Credentials,
    method: str,
    host: str,
    path: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    content: bytes,
    now: float,
) -> dict[str, str]:
    """Return the headers to send. `path` is percent-encoded already; `now` is unix seconds."""
    at = datetime.fromtimestamp(now, UTC)
    stamp, day = at.strftime("%Y%m%dT%H%M%SZ"), at.strftime("%Y%m%d")
    digest = hashlib.sha256(content).hexdigest()
    sent = {name.lower(): value for name, value in headers.items()}
    sent |= {"x-amz-date": stamp, "x-amz-content-sha256": digest}
    if credentials.session_token:
        sent["x-amz-security-token"] = credentials.session_token
    signed = dict(sorted({**sent, "host": host}.items()))
    names = ";".join(signed)
    lines = "".join(f"{name}:{' '.join(value.split())}\n" for name, value in signed.items())
    canonical = "\n".join((method, path, query_string(query), lines, names, digest))
    scope = f"{day}/{credentials.region}/s3/aws4_request"
    to_sign = "\n".join((_ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = f"AWS4{credentials.secret_key}".encode()
    for part in (day, credentials.region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    sent["authorization"] = (
        f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return sent
