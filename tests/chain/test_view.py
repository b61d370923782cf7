"""Reading at one block through one endpoint that may say anything."""

from typing import Any

import pytest

from engram.chain.errors import AnswerMalformed, EndpointUnreachable, RuntimeApiMissing, SubnetUnknown
from engram.chain.read.commitments import read_commitments
from engram.chain.read.node import RpcCall
from engram.chain.read.recorded import RecordedEndpoint
from engram.chain.read.view import open_view, view_at
from engram.clock import ManualClock
from tests.fakes.chain import unreachable
from tests.fakes.living_chain import LivingChain

PREFIX = LivingChain().types.storage_key("Commitments", "CommitmentOf", 450).hex().join(["0x", ""])


class Recording(LivingChain):
    """Remembers the block that each read was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: set[Any] = set()

    def answer(self, call: RpcCall) -> Any:
        if call.method.startswith("state_") and call.params:
            self.reads.add(call.params[-1])
        return super().answer(call)


async def test_everything_is_read_at_one_block() -> None:
    chain = Recording()
    view = await open_view([chain])
    await read_commitments(view, 450)
    await view.storage("SubtensorModule", "Burn", 450)
    await view.many([("SubtensorModule", "Tempo", (450,)), ("SubtensorModule", "Burn", (450,))])
    await view.metagraph(450, 0.0)
    assert chain.reads == {"0x" + view.head.hash.hex()}


async def test_the_recording_that_ships_is_read_as_any_chain() -> None:
    view = await open_view([RecordedEndpoint(ManualClock())])
    (found,) = await read_commitments(view, 450)
    assert found.payload == b"x" * 128
    assert await view.storage("SubtensorModule", "Tempo", 450) == 10
    assert await view.storage("SubtensorModule", "Uids", 450, bytes(32)) is None
    with pytest.raises(SubnetUnknown):
        await view.metagraph(451, 0.0)


async def test_maps_of_several_pages_are_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engram.chain.read.view.KEYS_AT_ONCE", 100)
    view = await open_view([LivingChain()])
    assert len(await view.entries("SubtensorModule", "Keys", 450)) == 256
    monkeypatch.setattr("engram.chain.read.view.KEYS_AT_MOST", 150)
    with pytest.raises(AnswerMalformed, match="more than 150 entries"):
        await view.entries("SubtensorModule", "Keys", 450)


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("state_getKeysPaged", ["0x1234"]),
        ("state_getKeysPaged", None),
        ("state_getKeysPaged", "0x12"),
        ("state_getKeysPaged", [1]),
        ("state_getKeysPaged", [PREFIX + "zz" * 40]),
        ("state_queryStorageAt", None),
        ("state_queryStorageAt", [{"changes": [["0x99", "0x00"]]}]),
        ("state_queryStorageAt", [{"changes": [["0x99"]]}]),
    ],
)
async def test_entries_that_were_not_asked_for_are_refused(method: str, answer: Any) -> None:
    chain = LivingChain()
    view = await open_view([chain])
    chain.replace[method] = answer
    with pytest.raises(AnswerMalformed):
        await view.entries("Commitments", "CommitmentOf", 450)


@pytest.mark.parametrize("answer", ["0x", "0xzz", 5, {}, "0x0102030405060708090a"])
async def test_a_value_that_is_not_of_its_type_is_refused(answer: Any) -> None:
    chain = LivingChain()
    view = await open_view([chain])
    chain.replace["state_getStorage"] = answer
    with pytest.raises(AnswerMalformed):
        await view.storage("SubtensorModule", "Tempo", 450)


async def test_the_next_endpoint_is_asked_and_the_last_failure_is_told() -> None:
    down = LivingChain("down")
    down.down = unreachable("down")
    view = await open_view([down, LivingChain("up")])
    assert view.node.name == "up"
    with pytest.raises(EndpointUnreachable, match="down"):
        await open_view([down])
    with pytest.raises(EndpointUnreachable, match="no endpoint"):
        await open_view([])


async def test_the_metadata_is_read_again_only_when_the_runtime_is_another() -> None:
    chain = LivingChain()
    view = await open_view([chain])
    asked = chain.asked.count("state_call")
    assert (await view_at(chain, view.head.hash, view)).metadata is view.metadata
    assert chain.asked.count("state_call") == asked
    chain.spec_version = 294
    assert (await view_at(chain, view.head.hash, view)).types.spec_version == 294
    assert chain.asked.count("state_call") == asked + 1


async def test_a_runtime_without_metadata_15_is_a_clear_error() -> None:
    from engram.chain.errors import CallRefused

    chain = LivingChain()
    chain.refuse["state_call"] = CallRefused(4003, "no such call")
    with pytest.raises(RuntimeApiMissing, match="runtime 293"):
        await open_view([chain])
