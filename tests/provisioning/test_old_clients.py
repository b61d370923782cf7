"""Clients that know no certificates, at a node that does not have its hotkey and a gateway that has it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from actors import ChildSpec, SupervisorSpec, open_system
from config.model import HttpSettings
from engram.api.call import Surface
from engram.api.node_model import Commitment
from engram.api.serving import Endpoints
from engram.clock import SeededIds, SystemClock
from engram.gateway.caller import Caller
from engram.gateway.node_signatures import bind_node_signatures
from engram.hotkeys import verify
from engram.hotkeys.certificates import HEADER
from engram.http.app import new_app
from engram.http.listener import Listener
from engram.http.router import Router
from engram.http.sockets import Address
from engram.provisioning.countersigning import Countersigner
from engram.provisioning.hotkey_ring import HotkeyRing
from tests.provisioning.foreign_nodes import Sold, sold


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[Sold]:
    async with sold(tmp_path) as made:
        yield made


@asynccontextmanager
async def gateway_of(session: Sold) -> AsyncIterator[str]:
    """The gateway's endpoint for nodes on a real socket; its base URL."""
    ring = HotkeyRing(session.folder / "hotkeys", lambda _: None)
    limits = HttpSettings(requests_per_minute_per_ip=0)
    app = new_app("gateway", settings=limits, clock=SystemClock(), ids=SeededIds(1), metrics=session.world.metrics)
    surface: Surface[Caller] = Surface()
    bind_node_signatures(Endpoints(Router(app), surface), Countersigner(session.world.ledger, session.instants, ring))
    listener = Listener("127.0.0.1", 0, limits, 1.0)
    job = ChildSpec("http", start=lambda: listener.job(lambda: app))
    async with open_system(SupervisorSpec("root", (job,))) as system:
        [address] = [node.info for node in system.tree() if isinstance(node.info, Address)]
        yield address.url


async def root_of(session: Sold, endpoint: str, headers: dict[str, str]) -> Commitment:
    answer = await session.http.request("GET", f"{endpoint}/commitment", headers=headers)
    assert answer.status == 200
    return answer.decode(Commitment)


async def test_the_root_is_signed_by_the_hotkey_unless_the_client_checks_certificates(
    session: Sold, tmp_path: Path
) -> None:
    hotkey = session.hotkey.public_key
    async with gateway_of(session) as gateway:
        with session.node(tmp_path / "data", gateway=gateway) as endpoint:
            await session.until_healthy(endpoint)
            session.serve(endpoint)
            old = await root_of(session, endpoint, {})
            assert verify(hotkey, old.signed.encode(), bytes.fromhex(old.signature[2:]))
            assert "certificate" not in json.loads(
                (await session.http.request("GET", f"{endpoint}/commitment")).content
            )
            new = await root_of(session, endpoint, {HEADER: "1"})
            assert not verify(hotkey, new.signed.encode(), bytes.fromhex(new.signature[2:]))
            assert isinstance(new.certificate, str)
            session.end()
            over = await root_of(session, endpoint, {})
            assert not verify(hotkey, over.signed.encode(), bytes.fromhex(over.signature[2:]))


async def test_without_its_gateway_a_node_answers_under_its_certificate_at_once(session: Sold, tmp_path: Path) -> None:
    with session.node(tmp_path / "data", gateway="http://127.0.0.1:9") as endpoint:
        await session.until_healthy(endpoint)
        session.serve(endpoint)
        with trio.fail_after(10.0):
            assert isinstance((await root_of(session, endpoint, {})).certificate, str)
