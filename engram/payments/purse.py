"""What the operator's settings say about refunds: the key that sends them, and the terms."""

from pathlib import Path
from typing import Final

import msgspec

from config.model import PaymentSettings, Settings
from config.rules import PLAY_RECIPIENT

from . import networks, refund_key
from .keccak import checksummed
from .owing import RefundTerms
from .refund_key import RefundKey

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
        min_part=round(payments.refund_min_usd * 1_000_000),
    )
