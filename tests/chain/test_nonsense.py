"""An endpoint that answers nonsense to any question of a command: an error of the chain in its time, never a crash."""

from contextlib import suppress
from random import Random
from typing import Any

import pytest
import trio

from engram.chain import ChainError
from engram.chain.errors import AnswerMalformed
from engram.chain.read.commitments import read_commitments
from engram.chain.read.node import Json, RpcCall
from engram.chain.read.view import open_view
from engram.chain.submit import calls
from engram.chain.submit.submit_extrinsic import InclusionWait, submit
from engram.hotkeys import Keypair
from tests.fakes.living_chain import LivingChain
from tests.sampling import NIGHTLY, SEED

METHODS = (
    "chain_getFinalizedHead",
    "chain_getHeader",
    "state_getRuntimeVersion",
    "system_chain",
    "state_call",
    "chain_getBlockHash",
    "system_accountNextIndex",
    "author_submitExtrinsic",
    "chain_getBlock",
    "state_getStorage",
    "state_getKeysPaged",
    "state_queryStorageAt",
)
NONSENSE: tuple[Any, ...] = (
    *(None, True, 0, -1, 1e308, 2**70, "", "0x", "0xzz", "0x00", "é", "0x" + "ff" * 40, "0x" + "11" * 32),
    *([], [1], ["0x"], [[]], {}, {"block": None}, {"block": {"extrinsics": [1]}}),
    *({"number": "0x"}, {"number": -1}, [{"changes": [["0x00", 5]]}]),
)
EVERY = [(method, answer, late) for method in METHODS for answer in NONSENSE for late in (False, True)]
SOME = EVERY if NIGHTLY else Random(SEED).sample(EVERY, 24)
MINER = Keypair.from_uri("//sn450//hot//7")


@pytest.mark.parametrize(("method", "answer", "late"), SOME)
async def test_nonsense_is_an_error_of_the_chain(method: str, answer: Any, late: bool) -> None:
    chain = LivingChain()
    with trio.fail_after(20), suppress(ChainError):
        if not late:
            chain.replace[method] = answer
        view = await open_view([chain])
        chain.replace[method] = answer
        await read_commitments(view, 450)
        await view.storage("SubtensorModule", "Burn", 450)
        await view.metagraph(450, 0.0)
        await submit(view, [chain], calls.set_commitment(450, b"a:1"), MINER, InclusionWait(0.001, 0.2))
    chain.replace.clear()
    before = chain.nonces.get(MINER.public_key, 0) + len(chain.pool)
    assert before <= 1  # submitted at most once, whether it is in a block yet or not
    view = await open_view([chain])
    assert len((await view.metagraph(450, 0.0)).neurons) == 256
    await submit(view, [chain], calls.set_commitment(450, b"a:2"), MINER, InclusionWait(0.001, 0.2))
    assert chain.nonces[MINER.public_key] == before + 1


@pytest.mark.parametrize("version", [-1, 2**32, 2**70])
@pytest.mark.parametrize("which", ["specVersion", "transactionVersion"])
async def test_a_version_that_no_runtime_has_is_an_error_of_the_chain(which: str, version: int) -> None:
    chain = LivingChain()
    chain.replace["state_getRuntimeVersion"] = {"specVersion": 293, "transactionVersion": 1, which: version}
    with pytest.raises(AnswerMalformed, match="a runtime of version"):
        await open_view([chain])


@pytest.mark.parametrize("tail", [" " * 80, "", "00" * 31, "AB" * 40, "0x" + "00" * 39])
async def test_a_key_without_an_account_is_no_commitment(tail: str) -> None:
    class Keys(LivingChain):
        def answer(self, call: RpcCall) -> Json:
            keys = call.params[0] if call.params else ""
            match call.method:
                case "state_getKeysPaged":
                    return [f"{keys}{tail}"]
                case "state_queryStorageAt" if isinstance(keys, list):
                    return [{"changes": [[key, "0x00"] for key in keys]}]
                case _:
                    return super().answer(call)

    view = await open_view([Keys()])
    with pytest.raises(AnswerMalformed):
        await read_commitments(view, 450)
