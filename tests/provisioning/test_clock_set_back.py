"""A gateway whose clock is set back certifies its nodes by the right time at once, and takes none for another."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import trio

from engram.clock import ManualClock, SystemClock
from engram.hotkeys import Keypair, certificates
from engram.hotkeys.certificates import CertificateRefused
from engram.miner.errors import Refused
from engram.miner.signer import Signer
from engram.provisioning import certifier
from engram.provisioning import enrollment_rules as rules
from engram.provisioning.certifier import CertifierPorts
from engram.sessions import ClockInstants, SessionState
from tests.fakes.responder import Answer, Asked, Responder
from tests.provisioning.foreign_nodes import TOKEN, Sold, sold
from tests.provisioning.test_enrollment import Provider


class CertifiedNode(Provider):
    """Takes certificates as a node does; `at` is its own clock, which may be wrong too."""

    def __init__(self, session: Sold, at: ManualClock) -> None:
        super().__init__(session)
        self.at = at
        self.signer = Signer(session.hotkey.public_key, self.keypair, self.box)

    async def answer(self, asked: Asked) -> Answer:
        if asked.method != "POST":
            return await super().answer(asked)
        fields = msgspec.json.decode(asked.body)
        try:
            self.signer.accept(fields["certificate"], self.signer.introduction("s", TOKEN), b"", self.at.now())
        except Refused as error:
            return error.status, {}, b"{}"
        self.certificate = fields["certificate"]
        return 200, {}, b'{"accepted": true}'


class Served:
    """A session that is active, its node, and the gateway's clock."""

    def __init__(self, session: Sold, clock: ManualClock, node: CertifiedNode) -> None:
        self.session = session
        self.clock = clock
        self.node = node

    async def sweep(self) -> str:
        """Let a sweep pass; return the state of the session after it."""
        session = self.session
        ports = CertifierPorts(
            ledger=session.world.ledger,
            enrollment=session.enrollment,
            instants=session.instants,
            hints=session.world.hints,
        )
        await certifier.sweep(ports)
        return session.world.state()

    def is_valid(self) -> bool:
        """Whether a client with the right time takes the node's certificate."""
        assert self.node.certificate is not None
        try:
            certificates.check(self.node.certificate, hotkey=self.session.hotkey.public_key, at=self.node.at.now())
        except CertificateRefused:
            return False
        return True


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """The gateway's clock is an hour ahead."""
    now = SystemClock().now()
    clock, right = ManualClock(now + 3_600.0), ManualClock(now)
    async with sold(tmp_path) as session, trio.open_nursery() as nursery:
        session.instants = ClockInstants(clock)
        session.enrollment = session.new_enrollment()
        node = CertifiedNode(session, right)
        endpoint = await nursery.start(Responder(node.answer).run)
        assert await session.enrollment.is_healthy(endpoint, TOKEN)
        session.serve(endpoint)
        yield Served(session, clock, node)
        nursery.cancel_scope.cancel()


async def test_a_clock_that_was_ahead_is_set_right_and_the_node_is_certified_at_once(served: Served) -> None:
    assert not served.is_valid()
    served.clock.jump(-3_600.0)
    assert await served.sweep() == SessionState.ACTIVE
    assert served.is_valid()


async def test_a_node_that_keeps_its_newer_certificate_is_no_other_node(served: Served) -> None:
    """Its own clock is ahead as the gateway's was, so that it cannot tell which of the two is right."""
    served.node.at = ManualClock(served.clock.now())
    served.clock.jump(-3_600.0)
    held = served.node.certificate
    for _ in range(8):
        assert await served.sweep() == SessionState.ACTIVE
        assert served.node.certificate == held
        served.clock.advance(certifier.SWEEP_S)
    served.clock.advance(3_600.0)
    assert await served.sweep() == SessionState.ACTIVE
    assert served.node.certificate != held


async def test_what_refuses_certificates_and_holds_none_of_the_future_is_noticed(served: Served) -> None:
    served.clock.jump(-3_600.0)
    other = Keypair.generate()
    newer = certificates.verified(served.node.certificate or "", served.session.hotkey.public_key)
    shown = [
        served.node.certificate,
        certificates.issue(other, msgspec.structs.replace(newer, hotkey=other.ss58)),
        "engram-cert-1.e30.AAAA",
    ]
    served.node.at = ManualClock(served.clock.now() + 3_600.0)
    for number, text in enumerate(shown):
        served.node.certificate = text
        assert await served.sweep() == (SessionState.DEGRADED if number else SessionState.ACTIVE)
        served.clock.advance(rules.RENEW_S + 1.0)
