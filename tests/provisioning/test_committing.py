"""Where a node serves that does not have its hotkey is committed by its gateway."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from actors import ChildSpec, Job, SupervisorSpec, open_system
from engram.chain import Subnets
from engram.chain.read.runtime import ERA_BLOCKS
from engram.chain.read.view import open_view
from engram.chain.registry.commitment_fields import raw_field
from engram.chain.registry.registrations import InvalidRegistration
from engram.chain.submit.sender import Sender
from engram.chain.submit.submit_extrinsic import InclusionWait
from engram.clock import ManualClock
from engram.hotkeys.node_identity import Introduction
from engram.provisioning import session_keys
from engram.provisioning.commitment_notes import CommitmentNotes
from engram.provisioning.committing import (
    LOOKED_AGAIN_S,
    PAUSE_FIRST_S,
    CommittingNodesPorts,
    commit_for_ever,
    registration_of,
)
from engram.provisioning.hotkey_ring import HotkeyRing
from tests.chain.test_sender import QUICK
from tests.fakes.living_chain import LivingChain
from tests.provisioning.foreign_nodes import TOKEN, Sold, sold
from tests.provisioning.test_announcing import NETUID, SUBMIT, registered

ENDPOINT = "http://abc123.ingress.provider.example.net"
TEXT = b"abc123.ingress.provider.example.net:80"
ROOT = raw_field(b"engram-relay:1:" + b"\5" * 32)


class Bench:
    """A gateway's job on a chain whose subnet has the hotkey of the sold session."""

    def __init__(self, session: Sold) -> None:
        self.session = session
        self.chain = registered(session.hotkey.public_key)
        self.clock = ManualClock(1_700_000_000.0)
        self.subnets = Subnets(self.clock, (NETUID,), 60.0)

    async def sync(self) -> None:
        self.subnets.publish(await (await open_view([self.chain])).metagraph(NETUID, 0.0), [])

    @asynccontextmanager
    async def running(self, waiting: InclusionWait = QUICK) -> AsyncIterator[None]:
        """A life of the job."""
        ports = CommittingNodesPorts(
            ledger=self.session.world.ledger,
            ring=HotkeyRing(self.session.folder / "hotkeys", lambda _: None),
            subnets=self.subnets,
            netuid=NETUID,
            nodes=(self.chain,),
            sender=Sender([self.chain], waiting=waiting),
            notes=CommitmentNotes(self.session.folder / "commitments"),
            allows_private=False,
            clock=self.clock,
            metrics=self.session.world.metrics,
        )
        child = ChildSpec("committing", lambda: Job(partial(commit_for_ever, ports, look_s=0.02)))
        async with open_system(SupervisorSpec("root", (child,))):
            yield

    async def outcome(self, name: str, times: int = 1) -> None:
        """Wait until so many commits had this outcome."""
        value = self.session.world.metrics.registry.get_sample_value
        with trio.fail_after(20.0):
            while value("engram_node_commitments_total", {"outcome": name}) != times:  # noqa: ASYNC110  # a counter
                await trio.sleep(0.02)

    @property
    def reads(self) -> int:
        """How often the chain was read."""
        return self.chain.asked.count("chain_getHeader")

    async def read_again(self, since: int) -> None:
        """Wait until the chain has been read more often than `since`, and what follows from it is done."""
        with trio.fail_after(20.0):
            while self.reads == since:  # noqa: ASYNC110  # the chain's own list
                await trio.sleep(0.02)
        await trio.sleep(0.1)

    async def reads_after(self, seconds: float) -> None:
        """Wait for what is done when so much time has passed."""
        reads = self.reads
        self.clock.advance(seconds)
        await self.read_again(reads)

    @property
    def sent(self) -> int:
        return self.chain.asked.count(SUBMIT)

    def hold(self, *fields: Any, block: int = 1) -> None:
        info = {"deposit": 0, "block": block, "info": {"fields": list(fields)}}
        self.chain.put(info, "Commitments", "CommitmentOf", NETUID, self.session.hotkey.public_key)

    def held(self) -> list[Any]:
        found: list[Any] = self.chain.get("Commitments", "CommitmentOf", NETUID, self.session.hotkey.public_key)[
            "info"
        ]["fields"]
        return found


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with sold(tmp_path) as session:
        shown = Introduction(
            hotkey=session.hotkey.public_key, key=b"\5" * 32, box_key=b"\6" * 32, session_id="s", launch_token=TOKEN
        )
        session.world.ledger.write_now(lambda c: session_keys.note(c, shown, 0, 4e9, 0.0))
        made = Bench(session)
        await made.sync()
        yield made


@pytest.mark.parametrize(
    ("endpoint", "committed"),
    [
        ("http://8.8.8.8:31234", "8.8.8.8:31234"),
        ("http://[2001:4860:4860::8888]:31234", "[2001:4860:4860::8888]:31234"),
        ("http://node.example.net", "node.example.net:80"),
        ("https://node.example.net", "node.example.net:443"),
    ],
)
def test_names_of_hosts_and_ports_that_are_shared_are_committed_too(endpoint: str, committed: str) -> None:
    assert registration_of(endpoint, allows_private=False).text == committed


@pytest.mark.parametrize("endpoint", ["http://10.0.0.5:31234", "http://localhost:1", f"http://{'a' * 46}.example.net"])
def test_what_others_do_not_reach_or_the_registry_does_not_hold_is_refused(endpoint: str) -> None:
    with pytest.raises(InvalidRegistration):
        registration_of(endpoint, allows_private=False)


async def test_an_active_node_is_committed_once_by_its_hotkey_beside_the_fields_of_others(bench: Bench) -> None:
    bench.hold(ROOT)
    async with bench.running():
        await trio.sleep(0.1)
        assert bench.sent == 0, "a session that is not active has no address"
        bench.session.serve(ENDPOINT)
        await bench.outcome("included")
        assert bench.held() == [raw_field(TEXT), ROOT]
        await bench.reads_after(LOOKED_AGAIN_S + 1.0)
    reads = bench.reads
    async with bench.running():
        await bench.read_again(reads)
    assert bench.sent == 1, "neither an hour later nor by the next life of the gateway"


async def test_a_hotkey_that_is_not_registered_commits_nothing(bench: Bench) -> None:
    bench.chain = LivingChain()
    await bench.sync()
    bench.session.serve(ENDPOINT)
    async with bench.running():
        await trio.sleep(0.3)
    assert bench.sent == 0


async def test_a_gateway_that_no_longer_holds_its_ledger_commits_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(bench.session.world.ledger), "holds", False)
    bench.session.serve(ENDPOINT)
    async with bench.running():
        await trio.sleep(0.3)
    assert bench.sent == 0


async def test_a_hotkey_that_has_committed_in_this_epoch_waits_for_the_next(bench: Bench) -> None:
    head = (await open_view([bench.chain])).head.number
    bench.hold(raw_field(b"8.8.8.8:1"), block=head)
    bench.session.serve(ENDPOINT)
    async with bench.running():
        await bench.outcome("waiting")
        assert bench.sent == 0
        bench.hold(raw_field(b"8.8.8.8:1"), block=1)
        bench.clock.advance(PAUSE_FIRST_S + 1.0)
        await bench.outcome("included")
    assert bench.held() == [raw_field(TEXT)], "the address of an earlier session made room"


async def test_a_commit_of_unknown_outcome_is_not_sent_again_while_it_may_arrive_also_after_a_restart(
    bench: Bench,
) -> None:
    bench.session.serve(ENDPOINT)
    bench.chain.drop_submissions = True
    async with bench.running(msgspec.structs.replace(QUICK, patience_s=0.0)):
        await bench.outcome("unknown")
        await bench.reads_after(PAUSE_FIRST_S + 1.0)
    bench.chain.drop_submissions = False
    reads = bench.reads
    async with bench.running():
        await bench.read_again(reads)
        assert bench.sent == 1
        for _ in range(ERA_BLOCKS):
            bench.chain.seal()
        await bench.reads_after(PAUSE_FIRST_S + 1.0)
        await bench.outcome("included")
    assert bench.held() == [raw_field(TEXT)]
    assert bench.sent == 2


async def test_a_note_that_cannot_be_written_keeps_the_commit_back(bench: Bench) -> None:
    (bench.session.folder / "commitments").write_text("in the way")
    bench.session.serve(ENDPOINT)
    async with bench.running():
        await bench.outcome("unsent")
    assert bench.sent == 0
