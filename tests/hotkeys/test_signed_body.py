"""The fast way to a signed body gives the bytes of the slow one."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engram.hotkeys import Keypair, miner_scheme
from engram.hotkeys.python_json import JsonValue, canonical

SIGNER = Keypair.from_seed(bytes(32))
VALUES: st.SearchStrategy[JsonValue] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
NAMES = st.text(max_size=8).filter(lambda name: name not in miner_scheme.SIGNING_FIELDS)


@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_a_body_that_is_signed_fast_is_verified_and_says_the_same(fields: dict[str, JsonValue]) -> None:
    body = miner_scheme.signed_body(SIGNER, "QuerySynapse", fields, 1_700_000_000_000)
    read = miner_scheme.verify_body(body, "QuerySynapse", 1_700_000_000_000)
    assert read.request.public_key == SIGNER.public_key
    assert {name: value for name, value in json.loads(body).items() if name not in miner_scheme.SIGNING_FIELDS} == (
        json.loads(json.dumps(fields))
    )


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.floats(-1e-3, 1e-3), max_size=40))
@example([1e-4, 9.9e-5, 1e-5, -1e-7, 1e15, 1e16, -1e22, 10.00001, 0.0, -0.0, 5e-324, 1.7976931348623157e308])
def test_the_numbers_of_a_vector_are_spelled_as_python_does(numbers: list[float]) -> None:
    values: list[JsonValue] = [*numbers]
    assert canonical(values) == json.dumps(numbers, separators=(",", ":")).encode()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_vector_with_something_that_is_no_number_is_not_written(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical([0.5, number])
