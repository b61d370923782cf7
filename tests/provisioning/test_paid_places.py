"""Backends that are paid from an account: what is sold between two looks at it is paid from it as well."""

from collections.abc import Mapping
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from engram.provisioning import Offers, placement
from engram.provisioning.placement import Sold, Standing
from engram.sessions import TierName

COSTS = {TierName.LITE: 30, TierName.STANDARD: 60, TierName.PRO: 120}
PLENTY = 10**6
ORDERS = st.lists(st.tuples(st.sampled_from(list(TierName)), st.integers(1, 30)), max_size=6)


def paid(spare: int, *sessions: str, places: int = PLENTY) -> Standing:
    offers = Offers(
        backend="paid",
        places=places,
        hourly_usd_micros=COSTS,
        spare_usd_micros=spare,
        paid_sessions=frozenset(sessions),
    )
    return Standing(name="paid", offers=offers, answers=True)


def free(places: int) -> Standing:
    return Standing(name="free", offers=Offers(backend="free", places=places), answers=True)


def cost(tier: TierName, hours: int) -> int:
    return COSTS[tier] * hours


@given(st.integers(0, 4_000), st.integers(0, 3), ORDERS)
def test_everything_that_is_sold_between_two_looks_can_be_paid_wherever_it_is_placed(
    spare: int, places: int, orders: list[tuple[TierName, int]]
) -> None:
    sold: list[Sold] = []
    standings = [paid(spare), free(places)]
    for number, (tier, hours) in enumerate(orders):
        now = placement.places_now(standings, {}, sold, tier, hours * 3600.0)
        if len(sold) < now:  # as a purchase is admitted
            sold.append(Sold(f"s{number}", tier, hours * 3600.0, None))
    # Any of them take the free places: what is left must be paid.
    for chosen in product((False, True), repeat=len(sold)):
        if sum(chosen) == min(places, len(sold)):
            owed = sum(
                cost(one.tier, int(one.seconds // 3600)) for one, away in zip(sold, chosen, strict=True) if not away
            )
            assert owed <= spare


def now(
    standing: Standing, held: Mapping[str, int], sold: list[Sold], tier: TierName = TierName.LITE, hours: int = 1
) -> int:
    return placement.places_now([standing], held, sold, tier, hours * 3600.0)


def test_a_session_that_was_counted_at_the_last_look_is_not_paid_twice() -> None:
    served = Sold("s1", TierName.PRO, 3600.0, "paid")
    assert now(paid(120, "s1"), {"paid": 1}, [served]) == 1 + 4
    assert now(paid(120), {"paid": 1}, [served]) == 1 + 0, "sold since then"
    assert now(paid(120), {}, [Sold("s2", TierName.STANDARD, 3600.0, None)]) == 1 + 2


def test_sessions_of_other_backends_take_none_of_its_money() -> None:
    assert now(paid(120), {}, [Sold("s1", TierName.PRO, 3600.0, "local")]) == 4


def test_no_more_than_its_places_are_sold_however_much_money_there_is() -> None:
    assert now(paid(10_000, places=3), {"paid": 1}, [Sold("s1", TierName.LITE, 3600.0, "paid")]) == 3
    assert now(paid(0, places=1), {"paid": 2}, []) == 2, "what is held is held"
    assert now(paid(0), {"paid": 1}, [Sold("s1", TierName.LITE, 36_000.0, "paid")]) == 1, "sold, and not to be paid"


def test_where_nothing_is_paid_from_an_account_only_places_count() -> None:
    sold = [Sold("s1", TierName.PRO, 3600.0, None)]
    assert placement.places_now([free(5)], {"free": 1}, sold, TierName.PRO, 1e9) == 5
    silent = Standing(name="paid", offers=paid(10_000).offers, answers=False)
    assert placement.places_now([free(2), silent], {"paid": 3}, sold, TierName.PRO, 1.0) == 2 + 3
