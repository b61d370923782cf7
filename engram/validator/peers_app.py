"""The surface of a validator for other validators: they ask for signatures, and say what has left."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar, final

import msgspec
import trio

from config.model import HttpSettings
from engram.api import validator_peers as api
from engram.api.call import Call, Surface
from engram.api.node_model import Health
from engram.api.route import NoBody
from engram.api.serving import Endpoints
from engram.clock import Clock, Ids
from engram.hotkeys import AuthError, Keypair, PublicKey, ReplayStore, Verifier, epistula
from engram.http.app import App, new_app
from engram.http.errors import ApiError
from engram.http.request import Answer
from engram.http.router import Router
from engram.ledger import CommitUnknown, LedgerUnavailable
from engram.relay.quorum import rules
from engram.relay.quorum.cosigner import Cosigner
from engram.relay.quorum.model import Judged, Verdict
from engram.relay.quorum.proposals import MalformedProposal, read_bundle, read_proposal
from engram.telemetry.metrics import Metrics

T = TypeVar("T")

MAX_BODY_BYTES: Final = 1_000_000
LARGE_BYTES: Final = 16_384
"""A larger payload is checked in a thread."""
READ_AT_ONCE: Final = 2
"""Large payloads that are checked at once; others wait."""
_RETRY: Final = (("Retry-After", "12"),)


@final
class PeerSurface(Surface[PublicKey]):
    """Verifies Epistula version 2 for this validator's key."""

    def __init__(self, own: PublicKey, clock: Clock) -> None:
        self._clock = clock
        self._verifier = Verifier(
            [epistula.V2], started_ms=int(clock.now() * 1000), replays=ReplayStore(bound=20_000), self_key=own
        )

    async def identify(self, call: Call[Any, PublicKey]) -> PublicKey:
        """Return the key that signed. Raises ApiError 401, 503."""
        http = call.http
        try:
            signed = self._verifier.request(
                http.lines,
                method=http.method,
                raw_path=http.raw_path,
                body=http.body,
                now_ms=int(self._clock.now() * 1000),
            )
        except AuthError as error:
            raise ApiError(503 if error.code == "busy" else 401, error.code, str(error)) from None
        return signed.public_key


def peers_app(
    cosigner: Cosigner, keypair: Keypair, *, settings: HttpSettings, clock: Clock, ids: Ids, metrics: Metrics
) -> App:
    """Return the application."""
    app = new_app(
        "validator",
        settings=settings,
        clock=clock,
        ids=ids,
        metrics=metrics,
        max_body_bytes=MAX_BODY_BYTES,
        single_headers=[name.encode() for name in epistula.V2.headers],
    )

    room = trio.CapacityLimiter(READ_AT_ONCE)

    async def aside(read: Callable[[], T], size: int) -> T:
        return read() if size <= LARGE_BYTES else await trio.to_thread.run_sync(read, limiter=room)

    async def propose(call: Call[api.ProposedOutput, PublicKey]) -> Answer:
        try:
            if (refused := cosigner.refuses(call.caller)) is not None:
                metrics.relay_verdicts.labels(refused.verdict).inc()
                judged, signature = refused, None
            else:
                payload, block_hash = bytes(call.request.payload), call.request.block_hash
                proposal = await aside(partial(read_proposal, payload, block_hash), len(payload))
                judged, signature = await cosigner.judge(call.caller, proposal)
        except MalformedProposal as error:
            metrics.relay_verdicts.labels(Verdict.MALFORMED).inc()
            judged, signature = Judged(Verdict.MALFORMED, str(error)), None
        except (LedgerUnavailable, CommitUnknown):
            raise ApiError(503, "unavailable", "The ledger does not answer; ask again.") from None
        opinion = api.CosignerOpinion(
            verdict=str(judged.verdict),
            reason=judged.reason,
            differences=[api.DifferingValue(**msgspec.structs.asdict(each)) for each in judged.differences],
            hotkey=keypair.ss58,
            signature=signature,
        )
        status = rules.STATUS[judged.verdict]
        return Answer(status, msgspec.json.encode(opinion), _RETRY if status == rules.TOO_EARLY else ())

    async def bundle(call: Call[api.BundledOutput, PublicKey]) -> api.BundleNoted:
        if (refused := cosigner.refuses(call.caller)) is not None:
            raise ApiError(rules.STATUS[refused.verdict], str(refused.verdict), refused.reason)
        try:
            payload = bytes(call.request.payload)
            proposal, keys = await aside(partial(read_bundle, payload), len(payload))
            return api.BundleNoted(await cosigner.note(proposal, keys))
        except MalformedProposal as error:
            raise ApiError(422, "malformed", str(error)) from None
        except (LedgerUnavailable, CommitUnknown):
            raise ApiError(503, "unavailable", "The ledger does not answer; say it again.") from None

    async def health(_: Call[NoBody, PublicKey]) -> Health:
        return Health(status="ok")

    endpoints = Endpoints(Router(app), PeerSurface(keypair.public_key, clock))
    endpoints.bind(api.PROPOSE, propose)
    endpoints.bind(api.BUNDLE, bundle)
    endpoints.bind(api.HEALTH, health)
    endpoints.require_all(api.ROUTES)
    return app
