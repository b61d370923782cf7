"""Asks other validators for their signature, and tells them what has left. Signed with Epistula version 2."""

from typing import Any, Final, final

import msgspec
import structlog

from engram import wire
from engram.api import validator_peers as api
from engram.api.route import Route
from engram.clock import Clock, Ids
from engram.hotkeys import Keypair, epistula, sign_headers
from engram.http.client import HttpClient, Response
from engram.http.errors import HttpError
from engram.relay.quorum.subnet_now import Peer

MAX_ANSWER_BYTES: Final = 1_000_000
_log = structlog.get_logger(__name__)


@final
class PeerClient:
    """Sends one request; many at once is the caller's to bound."""

    def __init__(self, http: HttpClient, keypair: Keypair, clock: Clock, ids: Ids, timeout_s: float) -> None:
        self._http = http
        self._keypair = keypair
        self._clock = clock
        self._ids = ids
        self._timeout_s = timeout_s

    async def ask(self, peer: Peer, document: bytes, block_hash: bytes) -> api.CosignerOpinion | None:
        """Return what a validator says of a signed payload; None when it gave no answer that can be read."""
        proposed = api.ProposedOutput(payload=msgspec.Raw(document), block_hash=block_hash.hex())
        answer = await self._send(peer, api.PROPOSE, msgspec.json.encode(proposed))
        if answer is None:
            return None
        try:
            return wire.decode(answer.content, api.CosignerOpinion)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            text = answer.content[:160].decode("utf-8", "replace")
            _log.warning("cosigner_not_understood", url=peer.url, status=answer.status, answer=text)
            return None

    async def announce_bundle(self, peer: Peer, body: bytes) -> bool:
        """Say that a bundle has left; False when the validator did not note it."""
        bundled = api.BundledOutput(payload=msgspec.Raw(body))
        answer = await self._send(peer, api.BUNDLE, msgspec.json.encode(bundled))
        return answer is not None and answer.status == 200

    async def _send(self, peer: Peer, route: Route[Any, Any], body: bytes) -> Response | None:
        headers = sign_headers(
            epistula.V2,
            self._keypair,
            now_ns=int(self._clock.now() * 1_000_000_000),
            body=body,
            uuid=self._ids.uuid4(),
            receiver=peer.hotkey,
        )
        try:
            return await self._http.request(
                "POST",
                peer.url + route.path,
                content=body,
                headers={**headers, "content-type": "application/json"},
                connect_s=min(3.0, self._timeout_s),
                read_s=self._timeout_s,
                total_s=self._timeout_s,
                max_bytes=MAX_ANSWER_BYTES,
            )
        except HttpError as error:
            _log.info("cosigner_away", url=peer.url, reason=str(error))
            return None
