"""The facts of a sale that follow from settings and installation alone, for the gateway and `engram doctor`."""

from config.model import Settings
from config.pricing import price_range
from engram.gateway.rules import SalesFacts
from engram.provisioning import node_parts


def fixed_facts(settings: Settings) -> SalesFacts:
    """Return the facts that hold while a process runs: the parts of local nodes, the prices, the recipient."""
    absent = node_parts.missing(settings.miner) if settings.provisioning.chosen == ("local",) else ()
    return SalesFacts(
        missing_parts=absent,
        parts_remedy=node_parts.remedy(absent) if absent else "",
        prices=price_range(
            settings.pricing.lite_usd_per_hour, settings.sessions.min_hours, settings.sessions.max_hours
        ),
        recipient=settings.payments.recipient,
    )
