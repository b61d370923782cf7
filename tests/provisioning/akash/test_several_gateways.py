"""Gateways that share a ledger, and the work on Akash that each of them does."""

from sqlalchemy import update

from engram.sessions.tables import sessions
from tests.provisioning.akash.test_reports import until, watched
from tests.provisioning.akash.worlds import World, world


async def test_a_deployment_is_looked_at_by_the_gateway_that_works_its_session_alone(virtual_time: None) -> None:
    """Else each of N gateways asks every provider for every lease."""
    async with world() as made, watched(made.backend):
        for number in (1, 2):
            spec = made.spec(f"s{number}", f"t{number}")
            made.sell(spec)
            await made.backend.launch(spec)
        mine, others = (row.dseq for row in made.rows())
        assert looks(made, others) > 0
        made.ledger.write_now(lambda c: c.execute(update(sessions).where(sessions.c.id == "s2").values(owner_epoch=7)))
        await until(lambda: looks(made, mine) >= 2)
        before = looks(made, others)
        seen = looks(made, mine)
        await until(lambda: looks(made, mine) >= seen + 5)
        assert looks(made, others) == before
        made.ledger.write_now(lambda c: c.execute(update(sessions).values(owner_epoch=0)))  # it is taken over
        await until(lambda: looks(made, others) > before)


def looks(made: World, dseq: int) -> int:
    """How often providers were asked how the deployment does."""
    return sum(
        f"/{dseq}/" in request and request.endswith("/status")
        for gateway in made.double.gateways.values()
        for request in gateway.requests
    )
