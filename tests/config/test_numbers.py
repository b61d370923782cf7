"""Every numeric setting, over everything a number can be: refused where it is written or at start, or right.

The settings come from the Structs themselves, so that a new one is covered the moment it is written down.
"""

import datetime as dt
import math
from functools import partial
from types import UnionType
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

import config
from actors import Registry
from config import ConfigError, Settings
from config.keys import KEYS, describe
from config.pricing import MOST_UNITS, price_range, units_of
from engram.gateway.pricing import Shop
from engram.gateway.sales_switch import Selling
from engram.ledger import open_inline
from engram.payments import records, reservations, x402
from engram.payments.actor import PaymentVerifier
from engram.payments.model import HoldLimits
from engram.payments.refund_settings import refund_terms
from engram.provisioning.local import PORT_COUNT
from engram.sessions import TierName, rules
from tests.payments import builders

pytestmark = pytest.mark.rules

RECIPIENT = "0x" + "11" * 20
ROLES = ("gateway", "miner", "facilitator")
LARGEST = 2**63 - 1
EXTREMES = [
    "nan", "inf", "-inf", "1e-320", "1e308", "-1e308", "0", "-0.0", "-1", "1", "0.5", "1e-7", "5e-7", "1e-6", "1e14",
    "1e300", "1e-3", "9999999999999999999", "-9999999999999999999", "9" * 400, "65535", "65536", str(2**31), str(2**63),
    "0x10", "1_000", "١", "", " ", "1,5",
]  # fmt: skip


def _numeric(hint: object) -> bool:
    if hint in (int, float):
        return True
    return get_origin(hint) is not UnionType and any(_numeric(inner) for inner in get_args(hint) if inner is not hint)


NUMERIC = [key for key, hint in KEYS.items() if _numeric(hint)]
PLENTY = HoldLimits(places=100, live_per_hotkey=100, holds_per_payer=100, holds_per_address=100)
PRICED = ("pricing.lite_usd_per_hour", "sessions.min_hours", "sessions.max_hours", "payments.max_timeout_s")
NUMBERS = st.one_of(
    st.sampled_from(EXTREMES),
    st.floats().map(repr),
    st.integers().map(str),
    st.integers(-(2**80), 2**80).map(str),
    st.floats(0, 1e6).map(repr),
)


def settings_with(key: str, text: str) -> Settings | str:
    """The settings that a process would start with, or why it would not."""
    given_flags: dict[str, str | float | None] = {key: text, "payments.recipient": RECIPIENT}
    try:
        loaded = config.load("local", (), {}, given_flags, ())
        config.check(loaded.settings, ROLES)
    except ConfigError as error:
        return str(error)
    return loaded.settings


def value_of(settings: Settings, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(settings, section), name)


def test_the_numbers_are_found_in_the_structs() -> None:
    assert {"pricing.lite_usd_per_hour", "gateway.port", "chain.netuids", "stats.jitter"} <= set(NUMERIC)
    assert len(NUMERIC) > 60
    assert not {"gateway.host", "gateway.selling", "shutdown.nodes"} & set(NUMERIC)


@pytest.mark.parametrize("key", NUMERIC)
def test_every_number_has_bounds_on_both_sides_or_a_rule(key: str) -> None:
    words = describe(KEYS[key])
    assert " to " in words or "at most" in words or key == "pricing.lite_usd_per_hour", words


@pytest.mark.parametrize("key", NUMERIC)
def test_extreme_numbers_are_refused_by_name_or_right(key: str) -> None:
    for text in EXTREMES:
        _refused_or_right(key, text)


@given(st.sampled_from(NUMERIC), NUMBERS)
def test_any_number_is_refused_by_name_or_right(key: str, text: str) -> None:
    _refused_or_right(key, text)


def _refused_or_right(key: str, text: str) -> None:
    settings = settings_with(key, text)
    if isinstance(settings, str):
        assert key in settings, settings
        return
    value = value_of(settings, key)
    for number in value if isinstance(value, tuple) else (value,):
        assert math.isfinite(number)
        assert 0 <= number <= LARGEST
        if key.endswith("_s"):
            assert round(number * 1_000_000_000) <= LARGEST
            assert number == 0 or (round(number * 1_000) >= 1 and math.isfinite(1 / number))
            assert dt.datetime.fromtimestamp(1.8e9 + number, dt.UTC).year < 10_000
        if key.endswith("_usd") and number:
            assert 1 <= units_of(number) <= LARGEST
        if key.endswith("port"):
            assert number < 65_536
    if key == "provisioning.first_port":
        assert value + PORT_COUNT - 1 <= 65_535
    if key.startswith("payments."):
        assert refund_terms(settings.payments).min_part >= 0
    if key in PRICED:
        _sold_right(settings)


def _sold_right(settings: Settings) -> None:
    """The shortest and the longest session of each tier: in the 402, and in the ledger."""
    ledger = open_inline()
    registry = Registry()
    shop = Shop(
        settings,
        lambda: "http://127.0.0.1:9000",
        ledger,
        Selling(ledger, default=True),
        registry.ref(PaymentVerifier, "payment_verifier"),
        lambda wanted: 10,
    )
    try:
        for number, (name, hours) in enumerate(
            (name, hours) for name in TierName for hours in (settings.sessions.min_hours, settings.sessions.max_hours)
        ):
            tier = rules.tiers(settings.pricing.lite_usd_per_hour)[name]
            seconds = rules.paid_seconds(hours, settings.sessions.min_hours, settings.sessions.max_hours)
            quote = shop.quotes.session(tier, hours)
            amount = quote.requirements.amount
            assert 1 <= amount <= MOST_UNITS < 2**63
            assert seconds > 0
            fields: dict[str, Any] = x402.challenge(quote, "Payment required").fields
            (offer,) = fields["accepts"]
            assert offer["maxAmountRequired"] == str(amount)
            assert fields["amount_usd"] == amount / 1_000_000
            taken = builders.reservation(f"nonce {number}", limits=PLENTY, amount=amount, seconds=seconds)
            assert isinstance(ledger.write_now(partial(reservations.reserve, reservation=taken)), reservations.Reserved)
            kept = ledger.write_now(partial(records.get, payment_id=taken.payment.id))
            assert kept is not None
            assert (kept.amount, kept.seconds) == (amount, seconds)
    finally:
        ledger.close()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            {"pricing.lite_usd_per_hour": "1e-7"},
            "is 1e-07; the price must come to at least 0.000001 USDC for the shortest session (0.5 h)",
        ),
        (
            {"pricing.lite_usd_per_hour": "1e14"},
            "the price must come to no more than 1000000000 USDC for the longest session of the tier pro (720 h)",
        ),
        ({"pricing.lite_usd_per_hour": "1e300"}, "is 1e+300; the price must come to no more than"),
        ({"sessions.min_hours": "800"}, "sessions.min_hours: is 800; it must be no more than sessions.max_hours (720)"),
        (
            {"payments.min_validity_left_s": "120"},
            "payments.min_validity_left_s: is 120; it must be less than payments.max_timeout_s (120)",
        ),
        ({"relay.backoff_min_s": "301"}, "it must be no more than relay.backoff_max_s (300)"),
        ({"provisioning.first_port": "65000"}, "'65000' is not a whole number from 1 to 64536"),
        ({"stats.interval_s": "1e-320"}, "'1e-320' is not a number greater than 0, from 0.001 to 31536000"),
        ({"payments.refund_min_usd": "1e-320"}, "'1e-320' is not a number that is 0 or, from 0.000001 to 1000000000"),
    ],
)
def test_a_refused_number_names_the_setting_its_value_and_what_would_be_right(
    flags: dict[str, str | float | None], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        config.check(config.load("local", (), {}, flags, ()).settings)
    assert words in str(caught.value)


def test_the_cheapest_and_the_dearest_price_that_start_are_the_bounds_themselves() -> None:
    for price, starts in (("0.000001", True), ("0.0000004", False), ("385802", True), ("385803", False)):
        assert isinstance(settings_with("pricing.lite_usd_per_hour", price), Settings) is starts
    assert price_range(0.000001, 0.5, 720.0)[0] == 1


def test_a_file_is_read_as_strictly_as_a_flag(tmp_path: Any) -> None:
    for line in ("drain_s = nan", "drain_s = inf", "drain_s = 1e-320", "drain_s = 1e308", "drain_s = -1"):
        path = tmp_path / "engram.toml"
        path.write_text(f"[shutdown]\n{line}\n")
        with pytest.raises(ConfigError, match=r"shutdown\.drain_s"):
            config.load("local", [path], {}, None, ())
