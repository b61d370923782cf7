"""The gateway's shop: the sales check, and the purchases of the payments area."""

from collections.abc import Callable
from typing import Final, final

from actors import ActorRef
from config.model import Settings
from engram.gateway.sales_check import Conditions, Sales
from engram.gateway.sales_switch import Selling
from engram.ledger import Ledger
from engram.payments.purchasing import Purchasing, Quotes, VerifierMessage


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
        places: Callable[[], int],
        conditions: Conditions | None = None,
    ) -> None:
        """`places` returns how many nodes may run at once now; `conditions` holds everything else a sale depends on.

        Raises UnknownNetwork, MalformedAddress.
        """
        self.sales: Final = Sales(ledger, selling, conditions or Conditions(places=places))
        self.quotes: Final = Quotes(settings, public_url)
        self.purchasing: Final = Purchasing(settings, ledger, verifier, places, self.sales.refusal)
