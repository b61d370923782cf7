"""A clock that is wrong, and a second holder of the account's key who means harm: what they can do, and what not."""

from collections.abc import Sequence

import pytest
import trio

from engram.provisioning import Unavailable
from engram.provisioning.akash import records
from engram.provisioning.akash.backend import AkashBackend
from engram.provisioning.akash.messages import (
    BidID,
    CloseDeployment,
    CloseLease,
    CreateLease,
    DeploymentID,
    Message,
)
from engram.provisioning.akash.model import Deployment, DeploymentState
from engram.provisioning.akash.transactions import Outgoing, Subject, TxState
from tests.provisioning.akash.test_reports import paid_leases, sound, until, watched
from tests.provisioning.akash.worlds import KEY, World, world
from tests.sampling import sample

S = DeploymentState


class Wrong:
    """A clock that is so many seconds ahead of everybody else's."""

    def __init__(self, made: World, ahead_s: float) -> None:
        self._right = made.clock
        self._ahead_s = ahead_s

    def now(self) -> float:
        return self._right.now() + self._ahead_s

    def monotonic(self) -> float:
        return self._right.monotonic()


async def test_a_gateway_whose_clock_is_an_hour_ahead_serves_and_closes(virtual_time: None) -> None:
    """Timeouts are of the chain's time; providers refuse a token of the future, and take one of the chain's time."""
    async with world() as made:
        made.clock = Wrong(made, 3_600.0)  # type: ignore[assignment]
        backend = AkashBackend(made.make_parts())
        async with watched(backend) as exits:
            spec = made.spec(hours=2.0)
            await backend.launch(spec)
            await trio.sleep(3 * made.parts.watch_s)
            assert exits == []
            await backend.destroy(spec.token)
        assert made.active() == []
        assert made.ledger.write_now(records.memories)[made.rows()[0].provider or ""].failures == 0
        sound(made)


async def test_a_gateway_whose_clock_is_set_back_closes_what_runs_and_begins_nothing(virtual_time: None) -> None:
    """All endpoints show blocks of the future then. A lease is not to go on until the clock is right again."""
    async with world() as made:
        clock = Wrong(made, 0.0)
        made.clock = clock  # type: ignore[assignment]
        backend = AkashBackend(made.make_parts())
        spec = made.spec(hours=2.0)
        async with watched(backend) as exits:
            await backend.launch(spec)
            clock._ahead_s = -3_600.0
            await trio.sleep(3 * made.parts.watch_s)
            assert exits == []
            for refused in (backend.offers(), backend.launch(made.spec("s2", "t2"))):
                with pytest.raises(Unavailable, match=r"clock is \d+ s behind"):
                    await refused
            assert len(made.rows()) == 1
            await backend.destroy(spec.token)
        assert made.active() == []
        sound(made)


async def steal(made: World, *messages: Message) -> None:
    """Send what another program with the same key would."""
    sender = made.make_parts().sender
    outgoing = await sender.prepare(messages, Subject.CLOSE, None)
    assert isinstance(outgoing, Outgoing), outgoing
    assert await sender.commit(outgoing)
    assert (await sender.follow(outgoing)).state is TxState.INCLUDED


async def back_again(made: World, backend: AkashBackend, exits: Sequence[str]) -> Deployment:
    """Wait until the loss is noticed, and launch again as the session's saga does; return what serves then."""
    spec = made.spec(hours=10.0)
    await until(lambda: spec.token in exits)
    await until(lambda: made.rows()[0].state is S.CLOSED)
    await backend.launch(spec)
    (serving,) = [row for row in made.rows() if row.state is S.SERVING]
    assert paid_leases(made) == len(made.active()) == 1
    sound(made)
    return serving


async def test_a_thief_who_closes_the_deployment_ends_no_session(virtual_time: None) -> None:
    async with world() as made, watched(made.backend) as exits:
        await made.backend.launch(made.spec(hours=10.0))
        (first,) = made.rows()
        made.double.make_blocks(20, 6.0)  # a lease of a minute ago may be unknown to an endpoint
        await steal(made, CloseDeployment(DeploymentID(KEY.address, first.dseq)))
        serving = await back_again(made, made.backend, exits)
        assert serving.dseq != first.dseq


@pytest.mark.parametrize("stays", sample("where a thief's lease is", [True, False], 1))
async def test_a_thief_who_makes_another_lease_of_the_deployment_gets_neither_manifest_nor_session(
    stays: bool, virtual_time: None
) -> None:
    """The order opens again when a lease is closed, and the new lease is on the deployment that our escrow pays for."""
    async with world() as made:
        await made.backend.launch(made.spec(hours=10.0))
        (first,) = made.rows()
        made.double.make_blocks(20, 6.0)
        old = BidID(KEY.address, first.dseq, first.gseq, first.oseq, first.provider or "", first.bseq)
        await steal(made, CloseLease(old))
        made.double.make_blocks(3, 6.0)
        again = [bid for bid in made.double.chain.state.bids.values() if bid.oseq == 2 and bid.state == "open"]
        thief = next(bid for bid in again if (bid.provider == first.provider) == stays)
        (provider,) = [one for one in made.double.providers.values() if one.address == thief.provider]
        before = provider.manifests_taken
        await steal(made, CreateLease(BidID(KEY.address, first.dseq, 1, 2, thief.provider, 0)))
        assert paid_leases(made) == 1
        async with watched(made.backend) as exits:
            serving = await back_again(made, made.backend, exits)
        assert serving.dseq != first.dseq
        assert provider.manifests_taken == before + (serving.provider == thief.provider)
