"""What a pool refuses with keeps its name and its text, and says what to do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.chain.errors import CallRefused, SubmitRefused
from engram.chain.read.node import RpcCall
from engram.chain.read.rpc import JsonRpcEndpoint
from engram.chain.read.view import open_view
from engram.chain.submit.calls import set_commitment
from engram.chain.submit.pool_refusals import ADVICE, CUSTOM_NAMES, POOL_CODES, SENTENCES, pool_refusal
from engram.chain.submit.submit_extrinsic import submit
from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from tests.cli.chains import served
from tests.fakes.living_chain import LivingChain

INVALID = "Invalid Transaction: "


@pytest.mark.parametrize(
    ("code", "message", "reason"),
    [
        (1010, f"{INVALID}Transaction has a bad signature", "badProof"),
        (1010, f"{INVALID}Transaction is outdated", "stale"),
        (1010, f"{INVALID}Transaction will be valid in the future", "future"),
        (1010, f"{INVALID}Inability to pay some fees (e.g. account balance too low)", "payment"),
        (1010, f"{INVALID}Transaction call is not expected", "call"),
        (1010, f"{INVALID}Transaction would exhaust the block limits", "exhaustsResources"),
        (1010, f"{INVALID}Transaction would exhaust the resources of current block", "exhaustsResources"),
        (1010, f"{INVALID}Transaction has an ancient birth block", "ancientBirthBlock"),
        (1010, f"{INVALID}Invalid signing address", "badSigner"),
        (1010, f"{INVALID}The implicit data was unable to be calculated", "indeterminateImplicit"),
        (1010, f"{INVALID}Custom error: 12", "ServingRateLimitExceeded"),
        (1010, f"{INVALID}Custom error: 10", "HotKeyNotRegisteredInNetwork"),
        (1010, f"{INVALID}Custom error: 99", "custom error 99"),
        (1010, f"{INVALID}a sentence of tomorrow", "invalid"),
        (1010, '{"invalid":{"stale":null}}', "stale"),
        (1010, '{"invalid":"badSigner"}', "badSigner"),
        (1010, '{"invalid":{"custom":10}}', "HotKeyNotRegisteredInNetwork"),
        (1010, 'Invalid Transaction: { "invalid" : { "custom" : 6 } }', "RateLimitExceeded"),
        (1010, '{"invalid":{"custom":25}}', "custom error 25"),
        (1010, '{"invalid":"ofTomorrow"}', "ofTomorrow"),
        (1010, "TransactionValidityError::Invalid(InvalidTransaction::BadSigner)", "badSigner"),
        (1010, "", "invalid"),
        (1011, '{"unknown":"cannotLookup"}', "cannotLookup"),
        (1011, "Unknown: Could not lookup information required to validate the transaction", "cannotLookup"),
        (1011, '{"unknown":{"custom":10}}', "custom error 10"),
        (1012, "Transaction is temporarily banned", "banned"),
        (1014, "Priority is too low", "priorityTooLow"),
        (1016, "Immediately Dropped: the pool is full", "immediatelyDropped"),
        (-32000, "anything", "code -32000"),
    ],
)
def test_a_refusal_is_reported_by_its_own_word_with_its_text(code: int, message: str, reason: str) -> None:
    refusal = pool_refusal(CallRefused(code, message))
    assert refusal.reason == reason
    assert message in str(refusal)
    assert refusal.advice in str(refusal)


def test_each_name_that_a_client_can_do_something_about_says_what() -> None:
    """Of staking and swapping, which Engram does not do, the name is enough."""
    named = {*CUSTOM_NAMES.values(), *SENTENCES.values(), *POOL_CODES.values()}
    assert set(ADVICE) - named == set()
    assert {reason for reason in SENTENCES.values() if reason not in ADVICE} == {
        "badMandatory",
        "mandatoryValidation",
        "noUnsignedValidator",
    }
    assert "engram subnet register" in pool_refusal(CallRefused(1010, '{"invalid":{"custom":10}}')).advice


@given(st.sampled_from([1010, 1011, 1014]), st.text(max_size=60))
def test_whatever_a_pool_says_is_a_refusal_with_its_text(code: int, message: str) -> None:
    refusal = pool_refusal(CallRefused(code, message))
    assert refusal.reason
    assert message in str(refusal)


@pytest.mark.parametrize("data", [{"invalid": {"custom": 10}}, '{"invalid":{"custom":10}}', "Custom error: 10"])
async def test_what_stands_in_the_error_objects_data_is_read_as_well(data: object) -> None:
    chain = LivingChain()
    with served(chain) as server:

        def refusing(replies: object) -> object:
            if isinstance(replies, dict) and chain.asked[-1:] == ["author_submitExtrinsic"]:
                error = {"code": 1010, "message": "Invalid Transaction", "data": data}
                return {"jsonrpc": "2.0", "id": replies["id"], "error": error}
            return replies

        server.shape = refusing
        http = HttpClient()
        node = JsonRpcEndpoint(http, server.url, 5.0)
        view = await open_view([node])
        with pytest.raises(SubmitRefused, match="HotKeyNotRegisteredInNetwork") as refused:
            await submit(view, [node], set_commitment(450, b"a:1"), Keypair.from_uri("//sn450//hot//7"))
        assert refused.value.reason == "HotKeyNotRegisteredInNetwork"
        (answer,) = await node.ask([RpcCall("nonsense")])
        assert isinstance(answer, CallRefused)
        await http.aclose()
