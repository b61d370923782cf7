"""Who sent a request, and its body once that is proven.

no body                         the headers prove it
Content-Digest, hashed scheme   the headers prove it; the body is hashed while it is passed on
short                           read into memory while there is room, then proven
long                            spooled, then proven
signed in its body              read into memory, up to the scheme's bound, then proven
"""

import hashlib
from typing import Final

import trio

from engram.hotkeys import Claim, SignedRequest, prove
from engram.hotkeys.content_digest import BadDigest, sha256_of
from engram.proxy.exchange.bodies import Body, LiveBody, MemoryBody, SpooledBody, next_part, require_pace, too_large
from engram.proxy.exchange.incoming import Incoming
from engram.proxy.exchange.refusing import Refusal
from engram.proxy.exchange.spool import Spool, no_room_in_memory
from engram.proxy.limits.pace import Pace
from engram.proxy.plan import HASHED, Plan

_AT_ONCE_BYTES: Final = 65_536
"""Bodies of this size are read whole even where a digest would allow to pass them on as they come."""
_SIGNED_BODY_BYTES: Final = 262_144


async def proven(request: Incoming, plan: Plan, spool: Spool, limit: int, now_ms: int, *, whole: bool = False) -> Body:
    """Set the request's caller and return its body, for the caller of this to close.

    `whole` reads the body to its end in any case. Raises AuthError, Refusal and Gone.
    """
    declared = request.declared_length
    if declared is not None and declared > limit:
        raise too_large(limit)
    claim = plan.verifier.claim(request.headers, now_ms=now_ms)
    request.phase = "body"
    if claim is None:
        return await _signed_in_body(request, plan, spool, limit, now_ms)
    digest = _digest(request)
    if declared == 0:
        body: Body = MemoryBody(b"", present=request.method not in ("GET", "HEAD"))
        signed = _prove(claim, request)
    elif _may_stream(digest, claim, declared) and not whole:
        assert digest is not None
        request.body_hash = digest
        signed = _prove(claim, request, digest)
        body = LiveBody(request, digest, limit)
    else:
        body, digest_seen = await _whole(request, plan, spool, limit)
        try:
            if digest is not None and digest != digest_seen:
                raise Refusal("digest_mismatch", "The body is not the one that Content-Digest names")
            request.body_hash = digest_seen
            if claim.scheme.name in HASHED:
                signed = _prove(claim, request, digest_seen)
            else:
                content = body.content if isinstance(body, MemoryBody) else None
                if content is None:
                    raise Refusal("body_too_large", "A request signed like this must be shorter, or name its digest")
                signed = prove(claim, method=request.method, raw_path=request.raw_path, body=content)
        except BaseException:
            body.close()
            raise
    try:
        _note(request, plan, signed, now_ms)
    except BaseException:
        body.close()
        raise
    return body


def _may_stream(digest: str | None, claim: Claim, declared: int | None) -> bool:
    """Return whether the headers prove the request, and its body is worth passing on while it arrives."""
    return digest is not None and claim.scheme.name in HASHED and (declared is None or declared > _AT_ONCE_BYTES)


def _prove(claim: Claim, request: Incoming, digest: str = "") -> SignedRequest:
    return prove(claim, method=request.method, raw_path=request.raw_path, body_hash=digest)


def _note(request: Incoming, plan: Plan, signed: SignedRequest, now_ms: int) -> None:
    plan.verifier.note(signed, method=request.method, now_ms=now_ms)
    request.caller = signed.public_key
    request.scheme = signed.scheme
    request.uuid = signed.uuid


async def _signed_in_body(request: Incoming, plan: Plan, spool: Spool, limit: int, now_ms: int) -> Body:
    body = await read_whole(request, plan, spool, min(limit, _SIGNED_BODY_BYTES))
    try:
        signed = plan.verifier.judge(
            request.headers, method=request.method, raw_path=request.raw_path, body=body.content, now_ms=now_ms
        )
        request.body_hash = hashlib.sha256(body.content).hexdigest()
        _note(request, plan, signed, now_ms)
    except BaseException:
        body.close()
        raise
    return body


async def read_whole(request: Incoming, plan: Plan, spool: Spool, limit: int) -> MemoryBody:
    """Return the whole body, for the caller of this to close. Raises Refusal and Gone."""
    received, more = bytearray(), True
    pace = Pace(plan.settings.server.body_timeout_s, trio.current_time())
    share = spool.share(request.bucket)
    try:
        while more:
            data, more, _ = await next_part(request, limit)
            if not share.take(len(data)):
                raise no_room_in_memory()
            received += data
            require_pace(request, pace)
    except BaseException:
        share.close()
        raise
    return MemoryBody(bytes(received), share)


async def _whole(request: Incoming, plan: Plan, spool: Spool, limit: int) -> tuple[Body, str]:
    """Return the whole body and its SHA-256 (hex)."""
    hashed, received, in_memory = hashlib.sha256(), bytearray(), plan.settings.bodies.memory_bytes
    pace = Pace(plan.settings.server.body_timeout_s, trio.current_time())
    share = spool.share(request.bucket)
    more = True
    try:
        while more:
            data, more, _ = await next_part(request, limit)
            hashed.update(data)
            received += data
            require_pace(request, pace)
            if len(received) > in_memory or not share.take(len(data)):
                break
        else:
            return MemoryBody(bytes(received), share), hashed.hexdigest()
        file = await spool.open(request.bucket)
    except BaseException:
        share.close()
        raise
    share.close()
    try:
        await file.write(bytes(received))
        while more:
            data, more, _ = await next_part(request, limit)
            hashed.update(data)
            await file.write(data)
            require_pace(request, pace)
        await file.finish()
    except BaseException:
        file.close()
        raise
    return SpooledBody(file), hashed.hexdigest()


def _digest(request: Incoming) -> str | None:
    try:
        return sha256_of(request.headers)
    except BadDigest as error:
        raise Refusal("bad_request", str(error), reason="bad_digest") from None
