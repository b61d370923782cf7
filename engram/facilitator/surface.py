"""The HTTP surface of the play-money facilitator. Its one caller is the gateway, on loopback."""

import msgspec

from config.model import HttpSettings
from engram.api import facilitator as api
from engram.api.call import Call, Reply, Surface
from engram.api.gateway_model import HealthAnswer
from engram.api.route import NoBody
from engram.api.serving import Endpoints
from engram.clock import Clock, Ids
from engram.facilitator.service import PlayFacilitator
from engram.http.app import App, new_app
from engram.http.errors import ApiError
from engram.http.router import Router
from engram.payments.errors import MalformedAddress
from engram.payments.keccak import parse_address
from engram.telemetry.metrics import Metrics

MAX_BODY_BYTES = 65_536


def facilitator_app(
    facilitator: PlayFacilitator, *, settings: HttpSettings, clock: Clock, ids: Ids, metrics: Metrics
) -> App:
    """Return the application. Requests of an address are not limited."""
    app = new_app(
        "facilitator",
        settings=msgspec.structs.replace(settings, requests_per_minute_per_ip=0),
        clock=clock,
        ids=ids,
        metrics=metrics,
        max_body_bytes=MAX_BODY_BYTES,
    )
    endpoints = Endpoints(Router(app), Surface[None]())
    _bind(endpoints, facilitator)
    endpoints.require_all(api.ROUTES)
    return app


def _bind(endpoints: Endpoints[None], facilitator: PlayFacilitator) -> None:
    """Bind every row. Payments are read by x402's own strict rules, which name what is wrong, and not as the row's."""

    async def verify(call: Call[api.PaymentBody, None]) -> Reply[api.VerifyAnswer]:
        status, answer = await facilitator.verify(call.http.body)
        return Reply(answer, status=status)

    async def settle(call: Call[api.PaymentBody, None]) -> Reply[api.SettleAnswer]:
        status, answer = await facilitator.settle(call.http.body)
        return Reply(answer, status=status)

    async def supported(_: Call[NoBody, None]) -> api.SupportedAnswer:
        return facilitator.supported()

    async def balance(call: Call[NoBody, None]) -> api.BalanceAnswer:
        try:
            known = parse_address(call.path("address"))
        except MalformedAddress as error:
            raise ApiError(400, "malformed_address", str(error)) from None
        return await facilitator.balance(known)

    async def health(_: Call[NoBody, None]) -> HealthAnswer:
        return HealthAnswer("ok", "engram-facilitator")

    endpoints.bind(api.VERIFY, verify)
    endpoints.bind(api.SETTLE, settle)
    endpoints.bind(api.SUPPORTED, supported)
    endpoints.bind(api.BALANCE, balance)
    endpoints.bind(api.HEALTH, health)
