"""Who held a permit at a block, read from a living chain and remembered."""

import pytest
from trio.testing import MockClock

from engram.chain.errors import CallRefused
from engram.chain.read.node import Json, RpcCall
from engram.relay.quorum.permits_then import PermitsThen
from tests.fakes.living_chain import NETUID, LivingChain


async def test_permits_are_read_at_the_block_itself_and_remembered_when_its_state_is_gone(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = LivingChain()
    reader = PermitsThen([chain], NETUID)
    then = chain.head
    held = await reader(then)
    assert held
    chain.seal()
    assert await reader(then) == held
    later = chain.head
    chain.seal()
    at_head = chain.answer

    def forgetful(call: RpcCall) -> Json:
        block_hash = str(call.params[-1]) if call.method.startswith("state_") and call.params else ""
        if block_hash.startswith("0x") and chain.number(block_hash) not in (None, chain.head):
            return CallRefused(4003, "State already discarded")
        return at_head(call)

    monkeypatch.setattr(chain, "answer", forgetful)
    assert await reader(then) == held
    assert await reader(later) is None
    assert await PermitsThen([], NETUID)(then) is None
