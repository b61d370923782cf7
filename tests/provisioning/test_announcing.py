"""A node that does not have its hotkey is announced by its gateway."""

import random
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio

from actors import ChildSpec, Job, Registry, SupervisorSpec, open_system
from config.model import ChainSettings
from engram.chain import Subnets
from engram.chain.read.endpoints import open_endpoints
from engram.chain.sync.actor import MetagraphSyncer
from engram.clock import SystemClock
from engram.hotkeys import ss58
from engram.hotkeys.node_identity import Introduction
from engram.provisioning import session_keys
from engram.provisioning.announcing import ANNOUNCERS, AnnouncingPorts, address_of, announce_for_ever
from engram.provisioning.hotkey_ring import HotkeyRing
from tests.cli.chains import served
from tests.fakes.living_chain import LivingChain
from tests.provisioning.foreign_nodes import TOKEN, Sold, sold

NETUID = 450
SUBMIT = "author_submitExtrinsic"


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[Sold]:
    async with sold(tmp_path) as made:
        shown = Introduction(
            hotkey=made.hotkey.public_key, key=b"\5" * 32, box_key=b"\6" * 32, session_id="s", launch_token=TOKEN
        )
        made.world.ledger.write_now(lambda c: session_keys.note(c, shown, 0, 4e9, 0.0))
        yield made


def registered(hotkey: bytes) -> LivingChain:
    """The recorded subnet with the hotkey in the place of uid 9's."""
    chain = LivingChain()
    chain.put(9, "SubtensorModule", "Uids", NETUID, hotkey)
    old = chain.get("SubtensorModule", "Keys", NETUID, 9)
    chain.metagraphs["0xc201"] = lambda scale: scale.replace(ss58.decode(old), hotkey)
    return chain


@pytest.mark.parametrize(
    ("endpoint", "found", "announced"),
    [
        ("http://node.example:31234", "203.0.113.5", None),  # a documentation address is not public
        ("http://node.example:31234", "8.8.8.8", "8.8.8.8:31234"),
        ("http://node.example", "8.8.8.8", None),
        ("https://node.example:443", "8.8.8.8", None),
        ("http://10.0.0.5:31234", "10.0.0.5", None),
        ("http://node.example:31234", "2001:4860:4860::8888", "[2001:4860:4860::8888]:31234"),
    ],
)
def test_only_an_address_of_its_own_that_others_reach_is_announced(
    endpoint: str, found: str, announced: str | None
) -> None:
    address = address_of(endpoint, found, allows_private=False)
    assert (None if address is None else address.text) == announced


async def test_an_active_node_is_announced_once_by_its_hotkey_and_no_longer_when_its_session_ends(
    session: Sold, tmp_path: Path
) -> None:
    chain = registered(session.hotkey.public_key)
    with served(chain) as server:
        settings = ChainSettings(endpoints=(server.url,), netuids=(NETUID,))
        clock, registry, rng = SystemClock(), Registry(), random.Random(1)
        subnets = Subnets(clock, settings.netuids, settings.stall_after_s)
        ports = AnnouncingPorts(
            registry=registry,
            ledger=session.world.ledger,
            ring=HotkeyRing(session.folder / "hotkeys", lambda _: None),
            subnets=subnets,
            chain=settings,
            netuid=NETUID,
            folder=tmp_path / "announcements",
            allows_private=True,
            http=session.http,
            clock=clock,
            rng=rng,
            metrics=session.world.metrics,
        )
        syncer = partial(MetagraphSyncer, open_endpoints(settings, session.http, clock), subnets, settings, clock, rng)
        root = SupervisorSpec(
            "root",
            (
                ChildSpec("chain", syncer),
                SupervisorSpec(ANNOUNCERS, strategy="dynamic", max_children=4, name=ANNOUNCERS),
                ChildSpec("announcing", lambda: Job(partial(announce_for_ever, ports, look_s=0.05))),
            ),
        )
        async with open_system(root, registry=registry):
            announcers = registry.supervisor(ANNOUNCERS)
            await trio.sleep(0.2)
            assert await announcers.children() == []
            session.serve("http://127.0.0.1:31234")
            with trio.fail_after(30.0):
                while SUBMIT not in chain.asked:  # noqa: ASYNC110  # a chain in another thread
                    await trio.sleep(0.05)
            assert [child.id for child in await announcers.children()] == [TOKEN]
            session.end()
            with trio.fail_after(10.0):
                while await announcers.children():  # noqa: ASYNC110  # another actor's children
                    await trio.sleep(0.05)
        assert chain.asked.count(SUBMIT) == 1
