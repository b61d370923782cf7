"""Asks a miner, of the original or ours, as a validator and its signers do: signed, bounded in bytes, depth and time.

What a miner answers is never believed beyond what can be computed here: CIDs are ours, latencies are by our clock.
"""

import math
import secrets
import struct
from typing import Any, Final, final

import msgspec
import trio

from engram import wire
from engram.api import node as api
from engram.api.node_model import Deleted, Found, Ingested, Listing, Possession, StorageProof, known
from engram.api.route import Route
from engram.clock import Clock
from engram.hotkeys import Keypair, PublicKey, certificates, content_digest, ss58
from engram.hotkeys.certificates import CertificateRefused
from engram.hotkeys.miner_scheme import SIGNED_FOR, signed_body
from engram.hotkeys.python_json import JsonObject
from engram.http.client import HttpClient, Response
from engram.http.errors import HttpError, NotSent, TooLarge
from engram.memory import cid as cids
from engram.memory.model import PUBLIC
from engram.memory.proof import keyed_tree, proofs
from engram.validator.model import Outcome
from engram.validator.scoring import TOP_K

MAX_ANSWER_BYTES: Final = 262_144
TEXTS: Final = 200
PAGE: Final = 50
SMALLEST_PAGE: Final = 10
"""Records of a page of public texts: at first, and at least before it is made smaller no more."""
PAGES: Final = 8
"""Pages that are asked for at most."""
CHALLENGE_VALID_S: Final = 10
AHEAD_MS: Final = 20_000
"""How far stamps may run ahead of the clock, when more requests are signed than milliseconds pass."""
SIGNED_AT_ONCE: Final = 4
"""Requests that are signed in one pass of the loop: some 0.4 ms each with their sending, and all may be ready."""
_READ_OF_A_REFUSAL: Final = 1_000
_AS_THE_SDK: Final = {
    "accept": "*/*",
    "accept-encoding": "gzip, deflate",
    "user-agent": "engram-sdk",
    certificates.HEADER: "1",
    "content-type": "application/json",
}
"""Headers of every request: those of customers' (engram/sdk/transport.py), or they would tell what is planted."""
REGISTERED_ONLY: Final = (401, 403)
"""A miner's answers to a key that it does not admit."""


class MinerReply(msgspec.Struct, frozen=True, kw_only=True):
    """What one request brought. `latency_ms` is from the request to the end of the answer, by our own clock."""

    outcome: Outcome
    latency_ms: float = 0.0
    detail: str = ""
    cids: tuple[str, ...] = ()
    proved: bool = False
    may_have_arrived: bool = True
    """False: nothing of the request left this machine."""
    not_admitted: bool = False
    """The miner does not admit the signer."""
    too_large: bool = False
    """The answer is larger than MAX_ANSWER_BYTES."""


class PublicRecord(msgspec.Struct, frozen=True):
    """A record of a miner's public ones, as it lists them. `text` is empty where it says none."""

    cid: str
    text: str


class ListedPage(msgspec.Struct, frozen=True):
    """A page of a miner's public records; None where it does not say."""

    records: list[PublicRecord] | None
    too_large: bool = False
    """It does not say, as the answer is larger than MAX_ANSWER_BYTES."""


def next_stamp(last_ms: int, now_ms: int) -> int:
    """Return the time to sign a request with: now, or a millisecond after the last one where that is not later.

    A last one far ahead of now was made before the wall clock was set back: every miner would refuse what follows it.

    >>> next_stamp(5, 1_000), next_stamp(1_000, 1_000), next_stamp(1_010, 1_000), next_stamp(1_000_000, 1_000)
    (1000, 1001, 1011, 1000)
    """
    return last_ms + 1 if now_ms <= last_ms < now_ms + AHEAD_MS else now_ms


def is_untimely(status: int, text: str) -> bool:
    """Return whether a miner, of the original or ours, refuses a request for its time: its clock is out, or our own.

    >>> is_untimely(401, "Check that your system clock is synchronised."), is_untimely(400, "Challenge expired")
    (True, True)
    >>> is_untimely(401, "not registered"), is_untimely(400, "cid is missing"), is_untimely(503, "clock")
    (False, False, False)
    """
    return (status == 401 and "clock" in text) or (status == 400 and "expired" in text)


@final
class MinerClient:
    """Sends one request at a time for each miner; many miners at once is the caller's to bound."""

    def __init__(self, http: HttpClient, clock: Clock, timeout_s: float) -> None:
        self._http = http
        self._clock = clock
        self._timeout_s = timeout_s
        self._last_ms = 0
        self._turn = trio.CapacityLimiter(SIGNED_AT_ONCE)

    async def ingest(self, url: str, signer: Keypair, text: str, vector: bytes) -> MinerReply:
        """Store a record as the SDK does of a client that embeds, so that the CID is ours.

        `answered` only when the miner gives that CID. Miners of the original keep no text but that of the metadata.
        """
        fields: JsonObject = {
            "metadata": {"text": text},
            "text": text,
            "raw_embedding": list(struct.unpack(f"<{len(vector) // 4}f", vector)),
        }
        reply, answer = await self._post(url, api.INGEST, signer, fields)
        if answer is None:
            return reply
        found = _decoded(answer, Ingested)
        if found is None:
            return _replace(reply, Outcome.MALFORMED, "no answer to an ingest")
        given, error = found.cid, found.error
        if given == cid_of(text, vector):
            return reply
        return _replace(reply, Outcome.REFUSED, str(error or f"another CID: {given}")[:200])

    async def query(self, url: str, signer: Keypair, vector: bytes) -> MinerReply:
        """Return the CIDs of the 10 records that the miner takes for the nearest."""
        fields: JsonObject = {
            "query_vector": list(struct.unpack(f"<{len(vector) // 4}f", vector)),
            "top_k": TOP_K,
        }
        reply, answer = await self._post(url, api.QUERY, signer, fields)
        if answer is None:
            return reply
        found = _decoded(answer, Found)
        if found is None or found.error:
            text = "no answer to a query" if found is None else str(found.error)[:200]
            return _replace(reply, Outcome.MALFORMED if found is None else Outcome.REFUSED, text)
        return msgspec.structs.replace(reply, cids=tuple(hit.cid for hit in found.results[:TOP_K]))

    async def challenge(self, url: str, own: Keypair, cid: str, vector: bytes, node: PublicKey) -> MinerReply:
        """Return whether the miner proves that it holds the vector's bytes; `legacy` where it knows the first form."""
        nonce, expires_at = secrets.token_bytes(32), int(self._clock.now()) + CHALLENGE_VALID_S
        fields: JsonObject = {
            "cid": cid,
            "nonce_hex": nonce.hex(),
            "validator_hotkey_hex": own.public_key.hex(),
            "expires_at": expires_at,
            "version": 2,
            SIGNED_FOR: ss58.encode(node),
        }
        reply, answer = await self._post(url, api.CHALLENGE, own, fields)
        if answer is None:
            return reply
        shown = _decoded(answer, Possession)
        if shown is None:
            legacy = _decoded(answer, StorageProof)
            if legacy is None or known(legacy.embedding_hash) is None:
                return _replace(reply, Outcome.MALFORMED, "no answer to a challenge")
            return _replace(reply, Outcome.LEGACY, "proves by the first form only, which shows a hash")
        try:
            challenge = proofs_of(node, own.public_key, nonce, cid, shown, expires_at)
            holds = _holds(shown, challenge, vector, self._clock.now())
        except (ValueError, OverflowError, msgspec.ValidationError, RecursionError):
            return _replace(reply, Outcome.MALFORMED, "a proof that cannot be read")
        return msgspec.structs.replace(reply, proved=holds, detail="" if holds else "the proof does not hold")

    async def delete(self, url: str, signer: Keypair, cid: str) -> MinerReply:
        """Take a record out. `answered` when it is gone, also when it was gone before."""
        path = api.DELETE.path.replace("{cid...}", cid.replace("::", "%3A%3A"))
        reply, answer = await self._send("DELETE", url + path, api.DELETE, signer, {"cid": cid}, gone=True)
        if answer is not None and answer.status != 404 and _decoded(answer, Deleted) is None:
            return _replace(reply, Outcome.MALFORMED, "no answer to a deletion")
        return reply

    async def public_texts(self, url: str, signer: Keypair) -> list[str] | None:
        """Return texts of the miner's public records, at most TEXTS; None when it does not say.

        They are asked for in pages, in smaller ones where a page is larger than an answer may be.
        """
        texts: list[str] = []
        limit, offset = PAGE, 0
        for _ in range(PAGES):
            page = await self.page(url, signer, offset, limit)
            if page.too_large and limit > SMALLEST_PAGE:
                limit //= 5
                continue
            if page.records is None:
                return texts or None
            texts += [each.text for each in page.records if each.text]
            offset += len(page.records)
            if len(page.records) < limit or offset >= TEXTS:
                break
        return texts

    async def page(self, url: str, signer: Keypair, offset: int, limit: int) -> ListedPage:
        """Return the miner's public records from the `offset`th on, at most `limit`, as anyone may list them."""
        reply, answer = await self._post(url, api.LIST, signer, {"limit": limit, "offset": offset})
        found = None if answer is None else _decoded(answer, Listing)
        if found is None:
            return ListedPage(None, reply.too_large)
        given = ((record.cid, record.metadata.get("text")) for record in found.records[:limit])
        return ListedPage([PublicRecord(cid, text if isinstance(text, str) else "") for cid, text in given])

    async def _post(
        self, url: str, route: Route[Any, Any], signer: Keypair, fields: JsonObject
    ) -> tuple[MinerReply, Response | None]:
        return await self._send("POST", url + route.path, route, signer, fields)

    async def _send(
        self, method: str, url: str, route: Route[Any, Any], signer: Keypair, fields: JsonObject, *, gone: bool = False
    ) -> tuple[MinerReply, Response | None]:
        """Return what the request brought, and the answer where there is one of status 200 (or 404 where `gone`)."""
        async with self._turn:
            self._last_ms = next_stamp(self._last_ms, int(self._clock.now() * 1000))
            body = signed_body(signer, route.signed_as, fields, self._last_ms)
        began = trio.current_time()
        try:
            answer = await self._http.request(
                method,
                url,
                content=body,
                headers=_AS_THE_SDK | content_digest.lines_of(body),
                connect_s=min(3.0, self._timeout_s),
                read_s=self._timeout_s,
                total_s=self._timeout_s,
                max_bytes=MAX_ANSWER_BYTES,
            )
        except HttpError as error:
            unreached = MinerReply(
                outcome=Outcome.UNREACHABLE,
                detail=str(error)[:200],
                may_have_arrived=not isinstance(error, NotSent),
                too_large=isinstance(error, TooLarge),
            )
            return unreached, None
        latency_ms = (trio.current_time() - began) * 1000
        if answer.status == 200 or (gone and answer.status == 404):
            return MinerReply(outcome=Outcome.ANSWERED, latency_ms=latency_ms), answer
        text = answer.content[:_READ_OF_A_REFUSAL].decode("utf-8", "replace")
        untimely = is_untimely(answer.status, text)
        refused = MinerReply(
            outcome=Outcome.UNTIMELY if untimely else Outcome.REFUSED,
            latency_ms=latency_ms,
            detail=f"{answer.status}: {text[:160]}",
            not_admitted=answer.status in REGISTERED_ONLY and not untimely,
        )
        return refused, None


def cid_of(text: str, vector: bytes) -> str:
    """Return the CID of a planted record."""
    return cids.compute(vector, {"text": text})


def proofs_of(
    node: PublicKey, own: PublicKey, nonce: bytes, cid: str, shown: Possession, expires_at: int
) -> proofs.Challenge:
    """Return the challenge that the answer must be to. Raises ValueError when the root is no hex."""
    return proofs.Challenge(node, own, nonce, cid, PUBLIC, bytes.fromhex(shown.root_hex), shown.count, expires_at)


def _holds(shown: Possession, challenge: proofs.Challenge, vector: bytes, now: float) -> bool:
    """Return whether the proof is of the vector, and signed by the node's hotkey or by a session key certified now."""
    inclusion = wire.convert(shown.inclusion, keyed_tree.Shown)
    signed = proofs.transcript(challenge) + bytes.fromhex(shown.proof)
    signature = bytes.fromhex(shown.signature.removeprefix("0x"))
    entry = keyed_tree.verify(inclusion, challenge.cid, challenge.root)
    if entry is None or not proofs.verify_possession(shown.proof, vector, challenge):
        return False
    try:
        certificates.require_signed(challenge.miner, signed, signature, known(shown.certificate), at=now)
    except CertificateRefused:
        return False
    return True


def _decoded(answer: Response, type_: type[Any]) -> Any:
    """Return the answer as `type_`, None when it is something else: wrong types, too deep, numbers that are none."""
    try:
        return wire.decode(answer.content, type_)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _replace(reply: MinerReply, outcome: Outcome, detail: str) -> MinerReply:
    return msgspec.structs.replace(reply, outcome=outcome, detail=detail)


def median_ms(latencies: list[float]) -> float | None:
    """Return the median of latencies in milliseconds; None when there are none."""
    finite = sorted(each for each in latencies if math.isfinite(each))
    if not finite:
        return None
    middle = len(finite) // 2
    return finite[middle] if len(finite) % 2 else (finite[middle - 1] + finite[middle]) / 2
