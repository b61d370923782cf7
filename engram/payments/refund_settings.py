"""What the operator's settings say about refunds: the key that sends them, and the terms."""

from pathlib import Path
from typing import Final

import msgspec

from config.model import PaymentSettings, Settings
from config.pricing import units_of
from config.rules import PLAY_RECIPIENT
from engram.api.refund_terms import PublishedTerms
from engram.payments import networks, refund_key
from engram.payments.keccak import checksummed
from engram.payments.refund_key import RefundKey
from engram.payments.refund_rules import RefundTerms

KEY_FILE: Final = "refund-key"
"""In the data folder, where the `local` environment keeps the key it makes itself."""


def open_refund_key(settings: Settings, folder: Path) -> RefundKey | None:
    """The key that sends refunds; None when the operator does it. Play money has one made for it at the first start.

    Raises UnusableRefundKey.
    """
    named = settings.payments.refund_key_file
    if named:
        return refund_key.read(Path(named))
    if networks.find(settings.payments.network).play:
        return refund_key.read_or_generate(folder / KEY_FILE)
    return None


def with_play_recipient(settings: Settings, key: RefundKey | None) -> Settings:
    """The settings in which play money goes to the refund key, where the profile names nobody's address."""
    payments = settings.payments
    if key is None or not networks.find(payments.network).play or payments.recipient != PLAY_RECIPIENT:
        return settings
    own = msgspec.structs.replace(payments, recipient=checksummed(key.address))
    return msgspec.structs.replace(settings, payments=own)


def refund_terms(payments: PaymentSettings) -> RefundTerms:
    """The terms as the settings grant them."""
    return RefundTerms(
        early_stop_share=payments.early_stop_refund_percent / 100,
        outage_free_s=payments.outage_free_s,
        min_part=units_of(payments.refund_min_usd),
    )


def published(payments: PaymentSettings) -> PublishedTerms:
    """The same terms as buyers are told. Raises UnknownNetwork."""
    granted = refund_terms(payments)
    by_itself = bool(payments.refund_key_file) or networks.find(payments.network).play
    return PublishedTerms(
        not_delivered_percent=100,
        node_lost_percent=100,
        ended_by_operator_percent=100,
        early_stop_percent=payments.early_stop_refund_percent,
        outage_percent=100,
        outage_free_s=granted.outage_free_s,
        smallest_part=str(granted.min_part),
        recipient="payer",
        sent="automatically" if by_itself else "by_operator",
        text=_sentence(payments, by_itself),
    )


def _sentence(payments: PaymentSettings, by_itself: bool) -> str:
    how = "at once" if by_itself else "by the operator"
    share = payments.early_stop_refund_percent
    return (
        f"Goes back to the payer, {how}: everything if no node comes up or you stop before it is active; the price of "
        f"the remaining time if the node is lost for good or the operator ends it, {share} % of it if you do; outages "
        f"beyond {payments.outage_free_s:g} s. No part below ${payments.refund_min_usd:g} is sent."
    )
