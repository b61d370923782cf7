"""What spending keys own, for the app: the books of play money, or the token on its chain."""

from typing import Final, final

from config.model import Settings
from config.pricing import units_of
from engram.facilitator import records as play
from engram.gateway.services import Balances, NoBalance
from engram.http.client import HttpClient
from engram.ledger import Ledger
from engram.payments.errors import RpcFailed
from engram.payments.evm_rpc import RpcCall, json_rpc
from engram.payments.networks import Network, find

FAUCET_USD: Final = 100.0
"""What the faucet of play money gives at once."""
FAUCET_BELOW_USD: Final = 100.0
"""Who owns more gets nothing."""
_BALANCE_OF: Final = "0x70a08231"
"""Selector of ERC-20's balanceOf(address)."""


def balances_of(settings: Settings, ledger: Ledger, http: HttpClient) -> Balances:
    """Return what knows the balances of the network that is paid on."""
    network = find(settings.payments.network)
    if network.play and settings.payments.facilitator_url == "embedded":
        return PlayBalances(ledger, units_of(settings.facilitator.opening_balance_usd))
    url = settings.payments.rpc_url
    return TokenBalances(json_rpc(http, url, settings.payments.rpc_timeout_s) if url else None, network)


@final
class PlayBalances(Balances):
    """The embedded facilitator's own books."""

    has_faucet = True

    def __init__(self, ledger: Ledger, opening: int) -> None:
        self._ledger = ledger
        self._opening = opening

    async def of(self, address: bytes) -> int | None:
        """Return the atomic units that an address owns."""
        return await self._ledger.read(lambda connection: play.balance(connection, address, self._opening))

    async def give(self, address: bytes) -> int:
        """Give play money to an address that owns little; return what it owns then."""
        most, given = units_of(FAUCET_BELOW_USD), units_of(FAUCET_USD)
        return await self._ledger.write(
            lambda connection: play.give(connection, address, given, below=most, opening=self._opening)
        )


@final
class TokenBalances(Balances):
    """The token's contract, where a node of the chain can be asked."""

    has_faucet = False

    def __init__(self, call: RpcCall | None, network: Network) -> None:
        self._call = call
        self._token = f"0x{network.asset.hex()}"

    async def of(self, address: bytes) -> int | None:
        """Return the atomic units that an address owns, None where no node of the chain is configured.

        Raises NoBalance when it does not answer.
        """
        if self._call is None:
            return None
        try:
            found = await self._call(
                "eth_call", [{"to": self._token, "data": _BALANCE_OF + address.hex().rjust(64, "0")}, "latest"]
            )
            return int(str(found), 16)
        except (RpcFailed, ValueError) as error:
            raise NoBalance(f"the chain cannot be asked: {error}") from None

    async def give(self, address: bytes) -> int:
        """Raise NoBalance: money that is worth something is not given away."""
        raise NoBalance("there is no faucet here")
