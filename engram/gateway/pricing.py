"""What is for sale and who takes the money."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, final

from actors import ActorRef
from config.model import Settings
from engram.gateway.sales_check import Conditions, Sales
from engram.gateway.sales_switch import Selling
from engram.ledger import Ledger
from engram.payments import networks, x402
from engram.payments.extensions import Discovery
from engram.payments.keccak import parse_address
from engram.payments.model import Limits, Quote, Requirements
from engram.payments.protocol import VerifierMessage
from engram.payments.purchase_answer import NoRoom
from engram.payments.refund_settings import published
from engram.payments.x402 import Challenge
from engram.sessions import Tier, TierName, rules

OFFERS_KEPT: Final = 256


@final
class Shop:
    """Quotes prices and says whether anything is sold at all."""

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
        """`places` says how many nodes may run at once now; `conditions` what else a sale depends on.

        Raises UnknownNetwork, MalformedAddress.
        """
        self.sales: Final = Sales(ledger, selling, conditions or Conditions(places=places))
        self.verifier = verifier
        self._settings = settings
        self._public_url = public_url
        self._places = places
        self._network = networks.find(settings.payments.network)
        self._recipient = parse_address(settings.payments.recipient)
        self._refund_terms = published(settings.payments)
        self._session, self._extension = _discovery(settings, "tier"), _discovery(settings)
        self._offers: OrderedDict[tuple[str, Requirements, str], Challenge] = OrderedDict()

    def quote_session(self, tier: Tier, hours: float) -> Quote:
        """The price of a new session."""
        return self._quote("/sessions", f"Engram memory node, {tier.name}, {hours:g} h", tier, hours, self._session)

    def quote_extension(self, session_id: str, tier: Tier, hours: float) -> Quote:
        """The price of more time."""
        return self._quote(
            f"/sessions/{session_id}/extend", f"{hours:g} h more of a {tier.name} node", tier, hours, self._extension
        )

    def offer(self, quote: Quote) -> Challenge:
        """The 402 of a quote. The last OFFERS_KEPT are kept: only what is sold, for how long, tells them apart."""
        key = (quote.resource, quote.requirements, quote.description)
        found = self._offers.get(key)
        if found is None:
            found = self._offers[key] = x402.challenge(quote)
            if len(self._offers) > OFFERS_KEPT:
                self._offers.popitem(last=False)
        return found

    def limits(self) -> Limits:
        """How much may be held open at once, now."""
        return Limits(
            places=min(self._places(), self._settings.sessions.live_in_all),
            live_per_hotkey=self._settings.sessions.live_per_hotkey,
            holds_per_payer=self._settings.payments.holds_per_payer,
            holds_per_address=self._settings.payments.holds_per_address,
        )

    async def refusal(self, quote: Quote | None = None) -> NoRoom | None:
        """Why nobody can buy anything new now (or what is quoted), None when somebody can. Raises LedgerError."""
        return await self.sales.refusal(None if quote is None else quote.requirements.amount)

    def _quote(self, path: str, description: str, tier: Tier, hours: float, discovery: Discovery) -> Quote:
        return Quote(
            requirements=Requirements(
                network=self._network,
                amount=rules.price(tier, hours),
                pay_to=self._recipient,
                max_timeout_s=self._settings.payments.max_timeout_s,
            ),
            resource=self._public_url() + path,
            description=description,
            terms_url=self._settings.gateway.terms_url or f"{self._public_url()}/terms",
            refund_terms=self._refund_terms,
            discovery=discovery,
            identifier_required=self._settings.payments.identifier_required,
        )


def _discovery(settings: Settings, *also: str) -> Discovery:
    """How an offer is asked for; `also` names fields beside the duration."""
    hours = {"type": "number", "minimum": settings.sessions.min_hours, "maximum": settings.sessions.max_hours}
    examples: dict[str, object] = {"tier": str(TierName.STANDARD), "duration_hours": 1}
    schemas: dict[str, object] = {
        "tier": {"type": "string", "enum": [str(name) for name in TierName]},
        "duration_hours": hours,
    }
    names = (*also, "duration_hours")
    return Discovery(
        body={name: examples[name] for name in names},
        schema={"type": "object", "properties": {name: schemas[name] for name in names}},
        output={"session_id": "4f1c…", "status": "provisioning", "code": "accepted"},
    )
