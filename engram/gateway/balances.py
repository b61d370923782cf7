"""GET /balances/{address}: what a spending key owns; POST …/faucet: play money, in `local` alone."""

from engram.api import gateway as api
from engram.api.call import Call
from engram.api.gateway_model import SpendingAnswer
from engram.api.route import NoBody
from engram.api.serving import Endpoints
from engram.gateway.caller import Caller
from engram.gateway.services import NoBalance, Services
from engram.http.errors import ApiError
from engram.payments import short_name
from engram.payments.errors import MalformedAddress
from engram.payments.keccak import checksummed, parse_address


def bind_balances(endpoints: Endpoints[Caller], services: Services) -> None:
    """Bind the endpoints under /balances."""
    balances, network = services.balances, short_name(services.settings.payments.network)

    def answer(address: bytes, units: int | None) -> SpendingAnswer:
        return SpendingAnswer(
            address=checksummed(address),
            network=network,
            amount=None if units is None else str(units),
            faucet=balances.has_faucet,
        )

    async def show(call: Call[NoBody, Caller]) -> SpendingAnswer:
        address = _address(call)
        try:
            return answer(address, await balances.of(address))
        except NoBalance as unknown:
            raise ApiError(503, "unavailable", f"{unknown}.", (("Retry-After", "5"),)) from None

    async def give(call: Call[NoBody, Caller]) -> SpendingAnswer:
        address = _address(call)
        if not balances.has_faucet:
            raise ApiError(404, "not_found", "Only a local gateway with play money has a faucet.")
        return answer(address, await balances.give(address))

    endpoints.bind(api.SHOW_BALANCE, show)
    endpoints.bind(api.GIVE_PLAY_MONEY, give)


def _address(call: Call[NoBody, Caller]) -> bytes:
    try:
        return parse_address(call.path("address"))
    except MalformedAddress as error:
        raise ApiError(400, "malformed_address", str(error)) from None
