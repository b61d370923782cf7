"""Two endpoints are asked the same: what they disagree on is told, never taken."""

from typing import Any

import pytest

from engram.chain.errors import AnswersDiffer, CallRefused, EndpointUnreachable
from engram.chain.read.commitments import read_commitments
from engram.chain.read.view import open_view
from tests.fakes.chain import unreachable
from tests.fakes.living_chain import LivingChain

STORAGE = ("SubtensorModule", "Tempo", 450)


def pair() -> tuple[LivingChain, LivingChain]:
    one, two = LivingChain("one"), LivingChain("two")
    one.seal_at_look = two.seal_at_look = False
    return one, two


async def test_endpoints_that_agree_are_read_as_one() -> None:
    one, two = pair()
    view = await open_view([one, two])
    assert await view.storage(*STORAGE) == 10
    await read_commitments(view, 450)
    assert (await view.metagraph(450, 0.0)).block == one.head
    assert two.asked.count("state_call") == one.asked.count("state_call")


@pytest.mark.parametrize("liar", [0, 1])
async def test_a_flipped_value_is_told_and_not_taken(liar: int) -> None:
    chains = pair()
    view = await open_view(chains)
    chains[liar].put(11, *STORAGE)
    with pytest.raises(AnswersDiffer, match=r"one and two differ on state_getStorage"):
        await view.storage(*STORAGE)
    chains[liar].metagraphs["0xc201"] = lambda scale: scale[:-1] + b"\x07"
    with pytest.raises(AnswersDiffer, match="differ on state_call"):
        await view.metagraph(450, 0.0)


async def test_a_commitment_that_one_endpoint_hides_is_told() -> None:
    one, two = pair()
    info = {"fields": [{"Raw5": "0x" + b"a:123".hex()}]}
    two.put({"deposit": 0, "block": 1, "info": info}, "Commitments", "CommitmentOf", 450, bytes(31) + b"\1")
    view = await open_view([one, two])
    with pytest.raises(AnswersDiffer, match="state_getKeysPaged"):
        await read_commitments(view, 450)


async def test_other_metadata_than_the_second_endpoints_composes_nothing() -> None:
    one, two = pair()
    one.replace["state_call"] = "0x" + "00" * 40
    with pytest.raises(AnswersDiffer, match="differ on state_call"):
        await open_view([one, two])


async def test_another_finalized_block_is_told() -> None:
    one, two = pair()
    two.reorganise(two.head)
    two.head = one.head
    with pytest.raises(AnswersDiffer, match="different finalized blocks 1100"):
        await open_view([one, two])


@pytest.mark.parametrize("why", ["down", "behind", "refuses"])
async def test_one_that_cannot_tell_holds_nothing_up(why: str) -> None:
    one, two = pair()
    if why == "down":
        two.down = unreachable("two")
    elif why == "behind":
        one.seal()
    else:
        two.refuse = {method: CallRefused(4003, "no") for method in ("state_call", "chain_getBlockHash")}
    view = await open_view([one, two])
    assert (await view.metagraph(450, 0.0)).block == one.head


async def test_the_next_one_is_asked_when_the_second_is_silent_and_the_silent_one_only_once() -> None:
    one, two = pair()
    three = LivingChain("three")
    three.seal_at_look = False
    asked = 0

    class Down(LivingChain):
        async def ask(self, calls: Any) -> Any:
            nonlocal asked
            asked += 1
            raise EndpointUnreachable("down")

    view = await open_view([one, Down("down"), two, three])
    once = asked
    three.put(11, *STORAGE)
    two.down = unreachable("two")
    with pytest.raises(AnswersDiffer, match="one and three"):
        await view.storage(*STORAGE)
    with pytest.raises(AnswersDiffer, match="one and three"):
        await view.storage(*STORAGE)
    assert asked == once + 1


async def test_a_block_that_is_not_finalized_at_the_other_contradicts_nothing() -> None:
    one, two = pair()
    two.reorganise(two.head)
    two.head = one.head
    two.lag = 1
    assert (await open_view([one, two])).head.number == one.head
