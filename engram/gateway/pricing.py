"""The gateway's shop: the sales check, and the purchases of the payments area."""

from collections.abc import Callable
from typing import Final, final

from actors import ActorRef
from config.model import Settings
from engram.gateway.sales_check import Conditions, Sales
from engram.gateway.sales_switch import Selling
from engram.ledger import Ledger
from engram.payments.purchasing import Purchasing, Quotes, VerifierMessage, Wanted


@final
class Shop:
    """The sales check together with the purchases that depend on it."""

    def __init__(
        self,
        settings: Settings,
        public_url: Callable[[], str],
        ledger: Ledger,
        selling: Selling,
        verifier: ActorRef[VerifierMessage],
        places: Callable[[Wanted | None], int],
        conditions: Conditions | None = None,
    ) -> None:
        """`places` returns how many nodes may run at once if this one is to; `conditions` holds everything else.

        Raises UnknownNetwork, MalformedAddress.
        """
        self.sales: Final = Sales(ledger, selling, conditions or Conditions(places=lambda: places(None)))
        self.quotes: Final = Quotes(settings, public_url)
        self.purchasing: Final = Purchasing(settings, ledger, verifier, places, self.sales.refusal)
