"""What the metadata says of storage, events and refusals."""

from functools import cache
from typing import Any

import pytest

from engram.chain.errors import AnswerMalformed, CallNotComposable
from engram.chain.read.runtime import RuntimeCall, RuntimeTypes
from tests.chain.samples import metadata

INFO = {"weight": {"ref_time": 1, "proof_size": 0}, "class": "Normal", "pays_fee": "No"}


@cache
def types() -> RuntimeTypes:
    return RuntimeTypes(metadata(), 293, 1)


def refused(error: object) -> tuple[str, str]:
    event: dict[str, Any] = {"ExtrinsicFailed": {"dispatch_error": error, "dispatch_info": INFO}}
    record = {"phase": {"ApplyExtrinsic": 3}, "event": {"System": event}, "topics": []}
    (told,) = types().events(types().encode_storage("System", "Events", [record]))
    assert (told.pallet, told.name, told.extrinsic) == ("System", "ExtrinsicFailed", 3)
    return types().refusal(told)


@pytest.mark.parametrize(
    ("error", "name"),
    [
        ({"Module": {"index": 18, "error": "0x02000000"}}, "SpaceLimitExceeded"),
        ({"Module": {"index": 7, "error": "0x1d000000"}}, "SettingWeightsTooFast"),
        ({"Module": {"index": 7, "error": "0xfe000000"}}, "error 0xfe000000 of pallet 7"),
        ({"Module": {"index": 250, "error": "0x00000000"}}, "error 0x00000000 of pallet 250"),
        ("BadOrigin", "BadOrigin"),
        ({"Token": "FundsUnavailable"}, "Token.FundsUnavailable"),
        ({"Arithmetic": "Overflow"}, "Arithmetic.Overflow"),
    ],
)
def test_a_refusal_has_the_name_that_the_metadata_gives(error: object, name: str) -> None:
    assert refused(error)[0] == name


def test_an_item_that_was_never_written_has_its_default() -> None:
    assert types().storage_value("SubtensorModule", "Burn", None) == 100_000_000
    assert types().storage_value("SubtensorModule", "Uids", None) is None
    assert types().events(None) == ()


@pytest.mark.parametrize("octets", [b"\x04", b"\x04\x00\x00", b"\xff" * 40, b"\x00\x00"])
def test_events_that_are_none_are_refused(octets: bytes) -> None:
    with pytest.raises(AnswerMalformed):
        types().events(octets)


@pytest.mark.parametrize(
    "call",
    [
        RuntimeCall("Nothing", "at_all", {}),
        RuntimeCall("SubtensorModule", "serve_axon", {"netuid": 450}),
        RuntimeCall("SubtensorModule", "burned_register", {"netuid": 70_000, "hotkey": bytes(32)}),
        RuntimeCall("SubtensorModule", "burned_register", {"netuid": 1, "hotkey": bytes(31)}),
        RuntimeCall("SubtensorModule", "burned_register", {"netuid": "one", "hotkey": bytes(32)}),
    ],
)
def test_a_call_that_does_not_fit_the_runtime_is_refused(call: RuntimeCall) -> None:
    with pytest.raises(CallNotComposable, match=rf"runtime 293: {call.pallet}\.{call.function}"):
        types().compose(call)


def test_what_the_runtime_has_is_known() -> None:
    assert types().has_call("SubtensorModule", "commit_crv3_weights")
    assert not types().has_call("SubtensorModule", "commit_timelocked_weights")
    assert not types().has_call("Nothing", "at_all")
    assert types().has_storage("Commitments", "CommitmentOf")
    assert not types().has_storage("Commitments", "Nothing")
    with pytest.raises(CallNotComposable):
        types().storage_value("Nothing", "AtAll", None)


def test_metadata_that_is_none_is_refused() -> None:
    with pytest.raises(AnswerMalformed):
        RuntimeTypes(metadata()[:-1], 293, 1)
    with pytest.raises(AnswerMalformed):
        RuntimeTypes(b"\x01\x10meta", 293, 1)
