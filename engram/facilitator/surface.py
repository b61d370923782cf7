"""HTTP surface of the play-money facilitator: x402's POST /verify, POST /settle, GET /supported; GET /balance."""

import msgspec
from quart import Response, request

from config.model import HttpSettings
from engram.clock import Clock, Ids
from engram.facilitator.service import PlayFacilitator
from engram.http.app import App, new_app
from engram.http.errors import ApiError
from engram.payments.errors import MalformedAddress
from engram.payments.keccak import parse_address
from engram.telemetry.metrics import Metrics

MAX_BODY_BYTES = 65_536


def facilitator_app(
    facilitator: PlayFacilitator, *, settings: HttpSettings, clock: Clock, ids: Ids, metrics: Metrics
) -> App:
    """Returns the surface. Its one caller is the gateway, on loopback: addresses are not limited."""
    app = new_app(
        "facilitator",
        settings=msgspec.structs.replace(settings, requests_per_minute_per_ip=0),
        clock=clock,
        ids=ids,
        metrics=metrics,
        max_body_bytes=MAX_BODY_BYTES,
    )

    @app.post("/verify")
    async def verify() -> Response:
        status, answer = await facilitator.verify(await _body())
        return _json(answer, status)

    @app.post("/settle")
    async def settle() -> Response:
        status, answer = await facilitator.settle(await _body())
        return _json(answer, status)

    @app.get("/supported")
    async def supported() -> Response:
        return _json(facilitator.supported())

    @app.get("/balance/<address>")
    async def balance(address: str) -> Response:
        try:
            known = parse_address(address)
        except MalformedAddress as error:
            raise ApiError(400, "malformed_address", str(error)) from None
        return _json(await facilitator.balance(known))

    @app.get("/health")
    async def health() -> Response:
        return _json({"status": "ok", "service": "engram-facilitator"})

    return app


async def _body() -> bytes:
    body = await request.get_data(as_text=False)
    assert isinstance(body, bytes)
    return body


def _json(document: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(document), status, content_type="application/json")
