"""Challenging a node: one of its public records, chosen at random, by a fresh nonce.

Shown is that the node commits to the record now, under a root that it signs together with our nonce. Whether it holds
the vector's bytes is for validators, who have them to compare. Private records are never challenge for.
"""

import random
import secrets
from typing import Any, Final, final

import msgspec

from config.model import StatsSettings
from engram import wire
from engram.api import node as api
from engram.api.node_model import Listing, Possession, known
from engram.api.route import Route
from engram.clock import Clock
from engram.hotkeys import Keypair, PublicKey, certificates
from engram.hotkeys.certificates import CertificateRefused
from engram.hotkeys.miner_scheme import sign_body
from engram.hotkeys.python_json import JsonObject
from engram.http.client import HttpClient, Response
from engram.http.errors import HttpError
from engram.memory.model import PUBLIC
from engram.memory.proof import keyed_tree, proofs

VALID_S: Final = 60
FARTHEST: Final = 10_000
"""Only of so many of a node's records one is chosen: a page far behind is long to find."""
MAX_ANSWER_BYTES: Final = 262_144


@final
class Prover:
    """Challenges nodes in the gateway's name."""

    def __init__(
        self, http: HttpClient, keypair: Keypair, settings: StatsSettings, clock: Clock, rng: random.Random
    ) -> None:
        self._http = http
        self._keypair = keypair
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._last_ms = 0

    async def __call__(self, endpoint: str, node: PublicKey, records: int) -> bool | None:
        """Return whether the node proved one of its `records` public records (at least 1).

        None: it could not be reached, or the record was gone meanwhile; nothing follows from that. Raises no HttpError.
        """
        try:
            page = await self._post(
                endpoint, api.LIST, {"limit": 1, "offset": self._rng.randrange(min(records, FARTHEST))}
            )
            found = page.decode(Listing).records if page.status == 200 else []
            return await self._challenge(endpoint, node, found[0].cid) if found else None
        except HttpError:
            return None

    async def _challenge(self, endpoint: str, node: PublicKey, cid: str) -> bool | None:
        nonce, own = secrets.token_bytes(32), self._keypair.public_key
        expires_at = int(self._clock.now()) + VALID_S
        fields: JsonObject = {
            "cid": cid,
            "nonce_hex": nonce.hex(),
            "validator_hotkey_hex": own.hex(),
            "expires_at": expires_at,
            "version": 2,
        }
        answer = await self._post(endpoint, api.CHALLENGE, fields)
        if answer.status != 200:
            return None if answer.status in (404, 408, 429) else False
        try:
            shown = wire.decode(answer.content, Possession)
            inclusion = wire.convert(shown.inclusion, keyed_tree.Shown)
            root, signature = bytes.fromhex(shown.root_hex), bytes.fromhex(shown.signature.removeprefix("0x"))
            challenge = proofs.Challenge(node, own, nonce, cid, PUBLIC, root, shown.count, expires_at)
            signed = proofs.transcript(challenge) + bytes.fromhex(shown.proof)
            certificates.require_signed(node, signed, signature, known(shown.certificate), at=self._clock.now())
            return keyed_tree.verify(inclusion, cid, root) is not None
        except (ValueError, OverflowError, msgspec.DecodeError, RecursionError, CertificateRefused):
            return False

    async def _post(self, endpoint: str, route: Route[Any, Any], fields: JsonObject) -> Response:
        """Send a signed request. Raises HttpError."""
        self._last_ms = max(int(self._clock.now() * 1000), self._last_ms + 1)
        return await self._http.request(
            "POST",
            endpoint + route.path,
            json=sign_body(self._keypair, route.signed_as, fields, self._last_ms),
            connect_s=self._settings.connect_timeout_s,
            read_s=self._settings.timeout_s,
            total_s=self._settings.timeout_s,
            max_bytes=MAX_ANSWER_BYTES,
            headers={certificates.HEADER: "1"},
            fresh=True,
        )
