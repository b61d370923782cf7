"""The saga of a session whose node is on a machine of somebody else, honest or not."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio
from sqlalchemy import update

from engram.hotkeys import Keypair
from engram.provisioning import certifier, saga
from engram.provisioning.backends import Backends
from engram.provisioning.fleet import Fleet
from engram.provisioning.tables import nodes
from engram.sessions import SessionState
from tests.fakes.nodes import InMemoryProvisioner
from tests.fakes.responder import Responder
from tests.provisioning.fleets import replaced
from tests.provisioning.foreign_nodes import Sold, sold
from tests.provisioning.test_enrollment import Provider, keys_of


@asynccontextmanager
async def at_a_provider(folder: Path) -> AsyncIterator[tuple[Sold, Provider, Fleet]]:
    """A session whose launch is committed, with the provider's answers at the address of its node."""
    async with sold(folder) as session, trio.open_nursery() as nursery:
        provider = Provider(session)
        url = await nursery.start(Responder(provider.answer).run)
        port = int(url.rsplit(":", 1)[1])
        session.world.ledger.write_now(lambda c: c.execute(update(nodes).values(port=port)))
        settings = msgspec.structs.replace(session.world.fleet.settings, attempts=1, launch_timeout_s=1.0)
        backends = Backends([InMemoryProvisioner(name="akash")])
        is_healthy = session.enrollment.is_healthy
        yield (
            session,
            provider,
            replaced(session.world.fleet, backends=backends, is_healthy=is_healthy, settings=settings),
        )
        nursery.cancel_scope.cancel()


async def test_a_session_is_active_once_its_node_is_certified(tmp_path: Path) -> None:
    async with at_a_provider(tmp_path) as (session, provider, fleet):
        await saga.run(fleet, "s")
        assert session.world.state() == SessionState.ACTIVE
        assert provider.certificate is not None


async def test_a_session_at_an_impostors_is_never_active_and_is_paid_back(tmp_path: Path) -> None:
    async with at_a_provider(tmp_path) as (session, provider, fleet):
        provider.changed = {"hotkey": provider.keypair.ss58}
        await saga.run(replaced(fleet, settings=msgspec.structs.replace(fleet.settings, attempts=0)), "s")
        assert session.world.state() == SessionState.FAILED
        assert session.world.failed == ["s"]
        assert (provider.certificate, keys_of(session)) == (None, [])


async def test_a_session_whose_node_was_exchanged_is_degraded_and_its_node_taken_back_by_the_saga_alone(
    tmp_path: Path,
) -> None:
    async with at_a_provider(tmp_path) as (session, provider, fleet):
        await saga.run(fleet, "s")
        provider.keypair = Keypair.generate()
        await certifier.sweep(session.certifier)
        assert session.world.state() == SessionState.DEGRADED
        await saga.run(fleet, "s")
        assert session.world.state() == SessionState.ACTIVE
        assert len(keys_of(session)) == 2
        assert session.world.states()[-3:] == ["active", "degraded", "active"]
