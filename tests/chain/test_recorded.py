from typing import Any

import msgspec
import pytest

from engram.chain.errors import CallRefused
from engram.chain.model import FinalizedBlock
from engram.chain.read.node import RpcCall
from engram.chain.read.recorded import RECORDED_NETWORK, RecordedEndpoint
from engram.chain.read.recorded.node import EPOCH_S, RECORDING, read_recording
from engram.clock import ManualClock
from tests.chain.samples import read, recorded_metagraph, rpc_recordings
from tests.fakes.chain import recording
from tests.fakes.living_chain import LivingChain

HASH = recorded_metagraph()["block_hash"]


async def ask(node: RecordedEndpoint, method: str, *params: object) -> object:
    (answer,) = await node.ask([RpcCall(method, params)])
    return answer


def same(one: object, other: object) -> bool:
    return bool(msgspec.json.encode(one, order="sorted") == msgspec.json.encode(other, order="sorted"))


def test_the_recording_is_small() -> None:
    assert RECORDING.stat().st_size < 300_000


OWN_WORDS = {"system_chain", "system_name", "system_version", "chain_getBlock"}
"""Answered in the recording's own words: it never pretends to be a network."""


@pytest.mark.parametrize(
    "call",
    [call for call in rpc_recordings() if call["method"] not in OWN_WORDS],
    ids=lambda call: f"{call['method']} {str(call['params'])[:20]}",
)
async def test_it_answers_as_the_node_did(call: dict[str, object]) -> None:
    node = RecordedEndpoint(ManualClock(EPOCH_S))
    params = call["params"]
    assert isinstance(params, list)
    if call["method"] == "state_call" and params[0] == "Metadata_metadata_versions":
        assert await ask(node, str(call["method"]), *params) == "0x040f000000"
        return
    answer = await ask(node, str(call["method"]), *params)
    if isinstance(answer, CallRefused):
        assert {"code": answer.code, "message": answer.message} == call["error"]
    else:
        assert same(answer, call.get("result"))


ASKED_BY_NOBODY = {"system_name", "system_version", "system_health", "chain_getBlock"}
"""Of the recorded calls; blocks of the double are held to the recorded ones in test_submitting.py."""


@pytest.mark.parametrize(
    "call",
    [call for call in rpc_recordings() if call["method"] not in ASKED_BY_NOBODY],
    ids=lambda call: f"{call['method']} {str(call['params'])[:20]}",
)
def test_the_tests_double_answers_as_the_node_did(call: dict[str, Any]) -> None:
    recorded = recording()
    chain = LivingChain(head=recorded.block)
    chain.seal_at_look = False
    hashes = {recorded.block: recorded.hash, recorded.block - 1: recorded.header["parentHash"], 0: recorded.genesis}
    chain.hashes = {number: str(block_hash) for number, block_hash in hashes.items()}
    answer = chain.answer(RpcCall(call["method"], tuple(call["params"])))
    match call:
        case {"method": "chain_getHeader", "result": {"number": number, "parentHash": parent}}:
            assert isinstance(answer, dict)
            assert (int(answer["number"], 16), answer["parentHash"]) == (int(number, 16), parent)
        case {"params": ["Metadata_metadata_versions", *_]}:
            assert isinstance(answer, CallRefused)
        case {"error": error}:
            assert isinstance(answer, CallRefused)
            assert (answer.code, answer.message) == (error["code"], error["message"])
        case _:
            assert same(answer, call["result"])


async def test_it_says_that_it_is_a_recording() -> None:
    assert await ask(RecordedEndpoint(ManualClock()), "system_chain") == RECORDED_NETWORK
    assert "record" in RECORDED_NETWORK


async def test_its_head_advances_one_block_per_twelve_seconds_of_the_clock() -> None:
    clock = ManualClock(EPOCH_S)
    node = RecordedEndpoint(clock)
    first = await ask(node, "chain_getFinalizedHead")
    clock.advance(11.9)
    assert await ask(node, "chain_getFinalizedHead") == first == HASH
    clock.advance(0.2)
    second = await ask(node, "chain_getFinalizedHead")
    header = await ask(node, "chain_getHeader", second)
    assert isinstance(header, dict)
    assert (header["number"], header["parentHash"]) == (hex(1101), HASH)
    assert await ask(node, "chain_getBlockHash", 1100) == HASH
    block = await ask(node, "chain_getBlock", second)
    assert isinstance(block, dict)
    assert block["block"]["header"] == header


async def test_its_metagraph_is_of_the_block_asked_for() -> None:
    clock = ManualClock(EPOCH_S + 90_000_000)
    node = RecordedEndpoint(clock)
    head = await ask(node, "chain_getFinalizedHead")
    answer = await ask(node, "state_call", "SubnetInfoRuntimeApi_get_metagraph", "0xc201", head)
    assert isinstance(answer, str)
    assert isinstance(head, str)
    metagraph = read(bytes.fromhex(answer[2:]), head=FinalizedBlock(node.head, bytes.fromhex(head[2:])))
    assert metagraph.block == node.head == 1100 + 7_500_000


async def test_processes_that_share_a_clock_share_a_chain() -> None:
    one, other = RecordedEndpoint(ManualClock()), RecordedEndpoint(ManualClock())
    assert await ask(one, "chain_getFinalizedHead") == await ask(other, "chain_getFinalizedHead")


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("chain_getHeader", ("0x12",), -32602),
        ("chain_getHeader", ("0x" + "zz" * 32,), -32602),
        ("chain_getBlockHash", ("x",), -32602),
        ("state_call", (), -32602),
        ("state_call", ("No_such", "0x"), 4003),
        ("state_getKeysPaged", ("0x", 1_001), -32602),
        ("state_queryStorageAt", ("0x",), -32602),
        ("state_getStorage", ("0x", "0x" + "11" * 32), 4003),
    ],
)
async def test_what_it_cannot_answer_is_refused(method: str, params: tuple[object, ...], code: int) -> None:
    answer = await ask(RecordedEndpoint(ManualClock()), method, *params)
    assert isinstance(answer, CallRefused)
    assert answer.code == code


@pytest.mark.parametrize("method", ["author_submitExtrinsic", "system_accountNextIndex"])
async def test_whoever_would_write_is_told_that_it_can_only_be_read(method: str) -> None:
    answer = await ask(RecordedEndpoint(ManualClock()), method, "0x")
    assert isinstance(answer, CallRefused)
    assert "can only be read" in answer.message


async def test_blocks_outside_the_recording_are_unknown() -> None:
    node = RecordedEndpoint(ManualClock(EPOCH_S))
    assert await ask(node, "chain_getBlockHash", 1101) is None
    assert await ask(node, "chain_getBlockHash", 7) is None
    assert await ask(node, "chain_getBlock", "0x" + "11" * 32) is None
    assert await ask(node, "chain_getBlockHash") == HASH


async def test_storage_is_read_page_by_page() -> None:
    node = RecordedEndpoint(ManualClock())
    keys: list[str] = []
    while page := await ask(node, "state_getKeysPaged", "0x", 1_000, keys[-1] if keys else None):
        assert isinstance(page, list)
        keys += page
    assert keys == sorted(read_recording().storage)
    value = await ask(node, "state_getStorage", keys[0])
    assert value == read_recording().storage[keys[0]]
    assert await ask(node, "state_call", "Metadata_metadata_at_version", "0x0e000000") == "0x00"
    methods = await ask(node, "rpc_methods")
    assert isinstance(methods, dict)
    assert "state_call" in methods["methods"]
