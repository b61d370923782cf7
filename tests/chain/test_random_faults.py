"""Endpoints that misbehave at random for an hour of virtual time: what is published stays true, and comes back."""

from collections.abc import Callable
from random import Random

import pytest
import trio

from actors import ChildSpec, Registry, SupervisorSpec, open_system
from actors.testing import run_deterministic
from config.model import ChainSettings
from engram.chain import Metagraph, Subnets
from engram.chain.errors import CallRefused, EndpointBusy
from engram.chain.sync.actor import MetagraphSyncer
from engram.clock import TrioClock
from tests.chain.samples import scale
from tests.fakes.chain import ChainDouble, unreachable
from tests.sampling import NIGHTLY, SEED

HOUR_S = 3_600.0
HONEST_AXON_PORT = 9999


def lie(octets: bytes) -> bytes:
    return octets.replace(HONEST_AXON_PORT.to_bytes(2, "little"), b"\x10\x27")


def break_something(chain: ChainDouble, rng: Random) -> None:
    faults: list[Callable[[], object]] = [
        lambda: setattr(chain, "down", unreachable(chain.name)),
        lambda: setattr(chain, "down", EndpointBusy("busy", rng.choice([None, 5.0, 60.0]))),
        lambda: setattr(chain, "delay_s", rng.choice([0.1, 5.0, 14.0])),
        lambda: chain.replace.update({"state_call": "0x" + scale()[: rng.randrange(46_000)].hex()}),
        lambda: chain.replace.update({"chain_getFinalizedHead": "0x" + rng.randbytes(32).hex()}),
        lambda: chain.replace.update({"chain_getHeader": None}),
        lambda: chain.refuse.update({"state_call": CallRefused(4003, "State already discarded")}),
        lambda: chain.metagraphs.update({"0xc201": lie}),
        lambda: chain.reorganise(rng.randrange(max(1100, chain.head - 5), chain.head + 1)),
        lambda: setattr(chain, "head", chain.head - rng.randrange(1, 5)),
        lambda: setattr(chain, "spec_version", chain.spec_version + 1),
    ]
    rng.choice(faults)()


def mend(chain: ChainDouble, true_head: int) -> None:
    chain.down, chain.delay_s, chain.head = None, 0.0, true_head
    chain.replace.clear()
    chain.refuse.clear()
    chain.forks.clear()
    chain.metagraphs["0xc201"] = lambda octets: octets


async def endure(seed: int) -> None:
    rng = Random(seed)
    # At most one of the three misbehaves at a time, so that two always agree on the truth.
    chains = [ChainDouble(name) for name in ("one", "two", "three")]
    settings, clock, registry = ChainSettings(), TrioClock(), Registry()
    subnets = Subnets(clock, settings.netuids, settings.stall_after_s)

    def start() -> MetagraphSyncer:
        return MetagraphSyncer(chains, subnets, settings, clock, Random(seed))

    published: list[Metagraph] = []
    true_head = 1100
    async with open_system(
        SupervisorSpec("root", [ChildSpec("chain", start, name="chain")]), registry=registry
    ) as system:
        broken: ChainDouble | None = None
        while trio.current_time() < HOUR_S:
            await trio.sleep(12)
            true_head += 1
            for chain in chains:
                chain.head += 1
            if broken is not None and rng.random() < 0.3:
                mend(broken, true_head)
                broken = None
            elif broken is None and rng.random() < 0.5:
                broken = rng.choice(chains)
                break_something(broken, rng)
            found = subnets.get(450)
            if found is not None and (not published or published[-1] is not found):
                published.append(found)
        for chain in chains:
            mend(chain, true_head)
        for _ in range(30):
            await trio.sleep(12)
            true_head += 1
            for chain in chains:
                chain.head += 1
        assert all(node.restarts == 0 for node in system.tree())
    blocks = [metagraph.block for metagraph in published]
    assert blocks == sorted(set(blocks)), "never the same or an older block twice"
    honest = ChainDouble()
    for metagraph in published:
        assert "0x" + metagraph.block_hash.hex() == honest.hash(metagraph.block), "never of another fork"
        axon = metagraph.neurons[1].axon
        if metagraph.witness is not None:
            assert axon is not None
            assert axon.port == HONEST_AXON_PORT, "never what one endpoint alone says"
    assert len(published) > 150, "one that misbehaves holds the others up for a while at most"
    found = subnets.get(450)
    assert found is not None
    assert found.block >= true_head - 1


@pytest.mark.parametrize("seed", range(SEED, SEED + (100 if NIGHTLY else 3)))
def test_what_is_published_stays_true_whatever_an_endpoint_does(seed: int) -> None:
    run_deterministic(endure, seed, seed=seed)
