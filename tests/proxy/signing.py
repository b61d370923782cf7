"""Requests as validators sign them, as bytes for a socket."""

import base64
import hashlib
import time
import uuid

from engram.hotkeys import Keypair, PublicKey, epistula, sign_headers
from engram.hotkeys.scheme import Scheme

ALICE = Keypair.from_uri("//Alice")
"""A validator."""
BOB = Keypair.from_uri("//Bob")
"""The miner."""
CHARLIE = Keypair.from_uri("//Charlie")
EVE = Keypair.from_uri("//Eve")


def headers_of(
    body: bytes = b"",
    *,
    by: Keypair = ALICE,
    to: PublicKey | None = None,
    scheme: Scheme = epistula.V2,
    digest: bool = False,
    method: str = "POST",
    ago_s: float = 0.0,
) -> dict[str, str]:
    """The headers that sign a request."""
    signed = sign_headers(
        scheme,
        by,
        now_ns=time.time_ns() - int(ago_s * 1e9),
        method=method,
        body=body,
        uuid=str(uuid.uuid4()),
        receiver=to or BOB.public_key,
    )
    if digest:
        signed["Content-Digest"] = digest_of(body)
    return signed


def digest_of(body: bytes) -> str:
    """The value of Content-Digest."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def raw(method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, *more: str) -> bytes:
    """A request with its body."""
    return head(method, path, len(body) if body or method == "POST" else None, headers, *more) + body


def head(method: str, path: str, length: int | None, headers: dict[str, str] | None = None, *more: str) -> bytes:
    """The head of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: miner.example", *more]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def signed(path: str, body: bytes = b"{}", *, method: str = "POST", by: Keypair = ALICE, digest: bool = False) -> bytes:
    """A signed request."""
    return raw(method, path, body, headers_of(body, by=by, digest=digest, method=method))
