"""Why nothing can be sold: each reason by its own fact, in one order, with what the operator does about it."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.pricing import MOST_UNITS
from engram.gateway.rules import CODES, LASTING, LEAST_FREE_BYTES, Reason, SalesFacts, not_ready, reasons
from engram.payments.purchase_answer import NoRoom

pytestmark = pytest.mark.rules

WELL = SalesFacts(
    prices=(50_000, 259_200_000),
    recipient="0x" + "11" * 20,
    usable_keys=3,
    places=4,
    held=2,
    free_bytes=LEAST_FREE_BYTES,
    chain_read=True,
)
CASES: list[tuple[dict[str, Any], list[str]]] = [
    ({}, []),
    ({"selling": False}, ["not_selling"]),
    ({"missing_parts": ("onnxruntime",), "parts_remedy": "install it"}, ["node_parts_missing"]),
    ({"prices": (0, 10)}, ["price_out_of_range"]),
    ({"prices": (1, MOST_UNITS)}, []),
    ({"prices": (1, MOST_UNITS + 1)}, ["price_out_of_range"]),
    ({"recipient": ""}, ["no_recipient"]),
    ({"usable_keys": 0}, ["no_hotkeys"]),
    ({"usable_keys": 0, "held": 0}, ["no_hotkeys"]),
    ({"usable_keys": 2}, ["no_capacity"]),
    ({"usable_keys": None}, []),
    ({"places": 0}, ["no_places"]),
    ({"places": 0, "silent_backends": ("docker",)}, ["backends_silent"]),
    ({"places": 3, "held": 3, "silent_backends": ("local", "docker")}, ["backends_silent", "no_capacity"]),
    ({"places": 2}, ["no_capacity"]),
    ({"places": None, "usable_keys": None, "held": 99}, []),
    ({"places": 2, "held": None}, []),
    ({"free_bytes": LEAST_FREE_BYTES - 1}, ["disk_full"]),
    ({"free_bytes": None}, []),
    ({"chain_read": False}, ["chain_unknown"]),
    ({"chain_read": None}, []),
    ({"facilitator": NoRoom("facilitator_unavailable", "not now", 7)}, ["facilitator_unavailable"]),
    ({"facilitator": NoRoom("facilitator_unsupported", "not here", 60)}, ["facilitator_unsupported"]),
    ({"facilitator": NoRoom("below_minimum", "too little", 0)}, ["below_minimum"]),
]


@pytest.mark.parametrize(("changes", "codes"), CASES)
def test_each_fact_has_its_reason(changes: dict[str, Any], codes: list[str]) -> None:
    found = reasons(msgspec.structs.replace(WELL, **changes))
    assert [reason.code for reason in found] == codes
    assert all(reason.message for reason in found)


def test_every_code_is_reached_and_those_that_last_are_among_them() -> None:
    assert {code for _, codes in CASES for code in codes} == set(CODES)
    assert set(CODES) > LASTING


@given(st.lists(st.sampled_from(CASES), max_size=8))
def test_reasons_come_in_one_order_and_none_twice(chosen: list[tuple[dict[str, Any], list[str]]]) -> None:
    changes: dict[str, Any] = {}
    for change, _ in chosen:
        changes |= change
    codes = [reason.code for reason in reasons(msgspec.structs.replace(WELL, **changes))]
    assert codes == sorted(set(codes), key=CODES.index)


def test_a_lasting_reason_says_what_the_operator_does_and_makes_the_gateway_not_ready() -> None:
    changes = {key: value for change, _ in CASES for key, value in change.items() if value is not None}
    worst = msgspec.structs.replace(WELL, **changes | {"usable_keys": 0, "places": 0, "free_bytes": 0, "held": 0})
    for reason in reasons(worst):
        assert bool(reason.remedy) or not reason.lasting, reason
        assert (not_ready([reason]) == reason.text) is reason.lasting
    assert not_ready(()) == ""
    assert not_ready([Reason("no_recipient", "a", "b"), Reason("no_capacity", "c"), Reason("no_places", "d", "e")]) == (
        "a; b; d; e"
    )


def test_a_buyer_is_answered_the_same_words() -> None:
    (reason,) = reasons(msgspec.structs.replace(WELL, missing_parts=("onnxruntime", "numpy"), parts_remedy="install"))
    assert reason.answer == NoRoom("node_parts_missing", reason.message, reason.retry_after_s)
    assert reason.message == "This gateway cannot run nodes: onnxruntime, numpy are not installed"
    assert reason.text == f"{reason.message}; install"
