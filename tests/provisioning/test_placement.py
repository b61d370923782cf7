"""Which backend a node is placed on."""

from hypothesis import given
from hypothesis import strategies as st

from config.model import Placement
from engram.provisioning import Offers, placement
from engram.provisioning.placement import Standing
from engram.sessions import TierName

LITE = TierName.LITE


def standing(name: str, places: int = 1, cost: int = 0, *, answers: bool = True) -> Standing:
    return Standing(
        name=name, offers=Offers(backend=name, places=places, hourly_usd_micros={LITE: cost}), answers=answers
    )


def names(
    rule: Placement, *standings: Standing, held: dict[str, int] | None = None, tried: dict[str, int] | None = None
) -> list[str]:
    return [offers.backend for offers in placement.ranked(rule, standings, held or {}, LITE, tried)]


def test_the_first_backend_that_answers_and_has_room_is_taken() -> None:
    three = standing("a", 2), standing("b", 2), standing("c", 2)
    assert names("first", *three) == ["a", "b", "c"]
    assert names("first", *three, held={"a": 2}) == ["b", "c"]
    assert names("first", standing("a", answers=False), standing("b")) == ["b"]
    assert names("first", Standing(name="a"), standing("b", 0)) == []


def test_the_cheapest_is_taken_and_equal_ones_as_they_are_named() -> None:
    assert names("cheapest", standing("a", cost=300), standing("b", cost=100), standing("c", cost=100)) == [
        "b",
        "c",
        "a",
    ]
    assert names("first", standing("a", cost=300), standing("b", cost=100)) == ["a", "b"]


def test_a_tier_whose_cost_is_not_told_costs_nothing() -> None:
    free = Standing(name="a", offers=Offers(backend="a", places=1), answers=True)
    assert names("cheapest", standing("b", cost=1), free) == ["a", "b"]


def test_where_nodes_of_the_session_were_given_up_comes_last() -> None:
    two = standing("a", 5, 100), standing("b", 5, 300)
    for rule in ("first", "cheapest"):
        assert names(rule, *two, tried={"a": 1}) == ["b", "a"]
        assert names(rule, *two, tried={"a": 1, "b": 1}) == ["a", "b"]


STANDINGS = st.lists(
    st.builds(standing, st.sampled_from("abcd"), st.integers(0, 9), st.integers(0, 9), answers=st.booleans()),
    max_size=4,
    unique_by=lambda each: each.name,
)
HELD = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 12))


@given(st.sampled_from(["first", "cheapest"]), STANDINGS, HELD)
def test_no_backend_is_given_more_nodes_than_it_has_places(
    rule: Placement, standings: list[Standing], held: dict[str, int]
) -> None:
    chosen = names(rule, *standings, held=held)
    for each in standings:
        has_room = each.answers and each.places > held.get(each.name, 0)
        assert (each.name in chosen) == has_room


@given(STANDINGS, HELD)
def test_what_is_free_is_free_where_a_backend_answers(standings: list[Standing], held: dict[str, int]) -> None:
    held = {name: count for name, count in held.items() if name in {each.name for each in standings}}
    free = sum(max(0, each.places - held.get(each.name, 0)) for each in standings)
    assert placement.places(standings, held) - sum(held.values()) == free
    assert (free > 0) == bool(names("first", *standings, held=held))
