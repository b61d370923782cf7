"""substrate-interface: behind our port, and as an independent peer on the double's socket."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio

from engram.chain.errors import AnswerMalformed, CallNotComposable
from engram.chain.read.commitments import read_commitment
from engram.chain.read.runtime import Era, RuntimeCall
from engram.chain.read.view import open_view
from engram.chain.submit import calls
from engram.chain.submit.submit_extrinsic import InclusionWait, submit
from engram.chain.submit.substrate import SubstrateComposer
from engram.hotkeys import Keypair, verify
from tests.fakes.chain import ChainServer
from tests.fakes.living_chain import LivingChain
from tests.sampling import sample

KEY = Keypair.from_uri("//sn450//hot//7")
QUICK = InclusionWait(0.01, 20.0)
CALLS: list[Callable[[], RuntimeCall]] = [
    lambda: calls.set_commitment(450, b"13.89.38.129:9999"),
    lambda: calls.set_commitment(450, b""),
    lambda: calls.set_commitment(450, bytes(range(128))),
    lambda: calls.serve_axon(450, "13.89.38.129", 8091, 1),
    lambda: calls.serve_axon(450, "2001:db8::1", 8091, 1),
    lambda: calls.set_weights(450, (1, 2, 255), (65_535, 1, 7), 11),
    lambda: calls.burned_register(450, KEY.public_key),
]


@pytest.mark.parametrize("make", sample("calls composed by both", CALLS, 1))
async def test_both_codecs_compose_the_same_extrinsic(make: Callable[[], RuntimeCall]) -> None:
    chain = LivingChain()
    view = await open_view([chain])
    call = make()
    era, genesis = Era(view.head.number, view.head.hash), bytes.fromhex(chain.hash(0)[2:])
    theirs = await SubstrateComposer(chain).compose(call, KEY, 3, era, genesis)
    octets = view.types.compose(call)
    start = len(theirs.octets) - len(octets)
    assert theirs.octets[start:] == octets
    signature = theirs.octets[theirs.octets.index(KEY.public_key) + 33 :][:64]
    assert verify(KEY.public_key, view.types.signature_payload(octets, 3, era, genesis), signature, allow_wrapped=False)
    assert view.types.extrinsic(octets, KEY.public_key, signature, 3, era) == theirs


@pytest.mark.nightly
async def test_a_commit_composed_by_substrate_interface_is_taken_and_read_back() -> None:
    chain = LivingChain()
    view = await open_view([chain])
    call = calls.set_commitment(450, b"13.89.38.129:9999")
    done = await submit(view, [chain], call, KEY, QUICK, SubstrateComposer(chain))
    assert done.block.number in chain.blocks
    held = await read_commitment(await open_view([chain]), 450, KEY.public_key)
    assert held is not None
    assert held.payload == b"13.89.38.129:9999"


@pytest.mark.nightly
async def test_a_call_that_is_none_is_a_clear_error() -> None:
    chain = LivingChain()
    view = await open_view([chain])
    era, genesis = Era(view.head.number, view.head.hash), bytes.fromhex(chain.hash(0)[2:])
    with pytest.raises(CallNotComposable):
        await SubstrateComposer(chain).compose(RuntimeCall("Commitments", "set_nothing", {}), KEY, 0, era, genesis)


@pytest.mark.nightly
async def test_another_genesis_block_than_before_is_refused() -> None:
    chain = LivingChain()
    view = await open_view([chain])
    era = Era(view.head.number, view.head.hash)
    with pytest.raises(AnswerMalformed, match="genesis"):
        await SubstrateComposer(chain).compose(CALLS[0](), KEY, 0, era, bytes(32))


async def test_an_independent_client_commits_on_the_doubles_socket_and_we_read_it(nursery: trio.Nursery) -> None:
    chain = LivingChain()
    server = ChainServer(chain)
    await nursery.start(server.run)

    def commit() -> Any:
        from substrateinterface import Keypair as TheirKeypair
        from substrateinterface import SubstrateInterface

        theirs = SubstrateInterface(url=server.url, ss58_format=42, auto_discover=False)
        fields = {"netuid": 450, "info": {"fields": [[{"Raw18": "0x" + b"[2001:db8::1]:8091".hex()}]]}}
        call = theirs.compose_call("Commitments", "set_commitment", fields)
        key = TheirKeypair.create_from_uri("//sn450//hot//8")
        extrinsic = theirs.create_signed_extrinsic(call=call, keypair=key, era={"period": 64})
        receipt = theirs.submit_extrinsic(extrinsic)
        theirs.transport.session.close() if hasattr(theirs.transport, "session") else None
        return receipt.extrinsic_hash, threading.current_thread().name

    digest, _ = await trio.to_thread.run_sync(commit)
    chain.seal()
    held = await read_commitment(await open_view([chain]), 450, Keypair.from_uri("//sn450//hot//8").public_key)
    assert held is not None
    assert held.payload == b"[2001:db8::1]:8091"
    assert len(digest) == 66
