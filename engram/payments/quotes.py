"""Quotes: what a session or more time costs, and the 402 that offers it."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, final

import msgspec

from config.model import Settings
from engram.payments import networks, x402
from engram.payments.extensions import Discovery
from engram.payments.keccak import parse_address
from engram.payments.model import Quote, Requirements
from engram.payments.pay_links import LINK_PATH, PayLink
from engram.payments.refund_settings import published
from engram.payments.x402 import PaymentChallenge
from engram.sessions import Tier, TierName, rules

OFFERS_KEPT: Final = 256
OFFERED: Final = "Payment required"
"""The error of a 402 that answers a request without a payment."""


@final
class Quotes:
    """Prices what is for sale, by the settings."""

    def __init__(self, settings: Settings, public_url: Callable[[], str]) -> None:
        """`public_url` is known once the listener is bound. Raises UnknownNetwork, MalformedAddress."""
        self._settings = settings
        self._public_url = public_url
        self._network = networks.find(settings.payments.network)
        self._recipient = parse_address(settings.payments.recipient)
        self._refund_terms = published(settings.payments)
        self._session, self._extension = _discovery(settings, "tier"), _discovery(settings)
        self._offers: OrderedDict[tuple[str, Requirements, str], PaymentChallenge] = OrderedDict()

    def session(self, tier: Tier, hours: float) -> Quote:
        """Price a new session."""
        return self._quote("/sessions", f"Engram memory node, {tier.name}, {hours:g} h", tier, hours, self._session)

    def extension(self, session_id: str, tier: Tier, hours: float) -> Quote:
        """Price more time for a session."""
        return self._quote(
            f"/sessions/{session_id}/extend", f"{hours:g} h more of a {tier.name} node", tier, hours, self._extension
        )

    def link(self, link: PayLink) -> Quote | None:
        """Return the offer that a pay link is, at its own price; None where payment is taken elsewhere by now."""
        if (link.network, link.pay_to) != (self._network.caip2, self._recipient.hex()):
            return None
        what = f"{link.hours:g} h more of a {link.tier} node" if link.session_id else f"{link.tier}, {link.hours:g} h"
        offered = self._offer(LINK_PATH, f"Engram memory node, {what}, by a pay link", link.amount, None)
        return msgspec.structs.replace(offered, identifier_required=False)

    def credit(self, path: str, amount: int, description: str) -> Quote:
        """Offer what is used later, for this amount (atomic units of the token), at that path."""
        return self._offer(path, description, amount, None)

    def challenge(self, quote: Quote, error: str) -> PaymentChallenge:
        """Return the 402 of a quote. The last OFFERS_KEPT plain offers are kept, by what is sold and for how long."""
        if error != OFFERED:
            return x402.challenge(quote, error)
        key = (quote.resource, quote.requirements, quote.description)
        found = self._offers.get(key)
        if found is None:
            found = self._offers[key] = x402.challenge(quote, OFFERED)
            if len(self._offers) > OFFERS_KEPT:
                self._offers.popitem(last=False)
        return found

    def _quote(self, path: str, description: str, tier: Tier, hours: float, discovery: Discovery) -> Quote:
        return self._offer(path, description, rules.price(tier, hours), discovery)

    def _offer(self, path: str, description: str, amount: int, discovery: Discovery | None) -> Quote:
        return Quote(
            requirements=Requirements(
                network=self._network,
                amount=amount,
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
    """Describe the body that asks for an offer; `also` names fields beside the duration."""
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
