"""A provider that starts no node and answers in its place: it has read the launch token in the manifest."""

from pathlib import Path

import msgspec
from sqlalchemy import select

from engram.nodes.agreement import NodeSecrets
from engram.provisioning import saga, session_keys
from engram.provisioning.backends import Backends
from engram.provisioning.enrollment import Enrollment, EnrollmentPorts
from engram.provisioning.health import health_probe
from engram.provisioning.hotkey_ring import HotkeyRing
from engram.provisioning.tables import node_session_keys
from engram.sessions import SessionState
from tests.provisioning import fleets
from tests.provisioning.akash.test_reports import paid_leases, sound
from tests.provisioning.akash.worlds import world


async def test_a_session_whose_provider_answers_itself_is_never_active_and_nothing_is_paid_on(
    virtual_time: None, tmp_path: Path
) -> None:
    async with world() as made:
        for name in made.double.providers:
            made.faults(name, answers_itself=True)
        sold = fleets.World(made.ledger, clock=made.clock)
        sold.sell("s1")
        enrollment = Enrollment(
            EnrollmentPorts(
                http=made.http,
                ledger=made.ledger,
                instants=sold.instants,
                ring=HotkeyRing(tmp_path, lambda _: None),
                metrics=sold.metrics,
                launch_timeout_s=1.0,
                secrets=NodeSecrets(),
                given=session_keys.GIVEN,
            )
        )
        probe, seen = health_probe(made.http), set[tuple[bool, bool]]()

        async def is_healthy(endpoint: str, token: str) -> bool:
            seen.add((await probe(endpoint, token), found := await enrollment.is_healthy(endpoint, token)))
            return found

        backends = Backends([made.backend])
        await backends.look()
        settings = msgspec.structs.replace(sold.fleet.settings, attempts=1, launch_timeout_s=1.0)
        fleet = fleets.replaced(sold.fleet, backends=backends, is_healthy=is_healthy, settings=settings)
        await saga.run(fleet, "s1")
        assert seen == {(True, False)}, "it answers with the launch token, and cannot say who it is"
        assert sold.state("s1") == SessionState.FAILED
        assert sold.failed == ["s1"], "what was paid goes back"
        keys = made.ledger.write_now(lambda c: list(c.execute(select(node_session_keys.c.session_key)).scalars()))
        assert keys == []
        assert paid_leases(made) == 0
        assert made.active() == []
        sound(made)
