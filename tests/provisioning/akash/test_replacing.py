"""A provider gives notice: what is asked for its successor, and what the operator is told where none is found."""

import msgspec
import trio
from structlog.testing import capture_logs

from engram.provisioning.akash import records, transactions, tx
from engram.provisioning.akash.messages import CreateDeployment
from engram.provisioning.akash.model import SUCCESSOR, Deployment, DeploymentState
from engram.provisioning.akash.resources import GroupSpec
from engram.provisioning.akash.transactions import Subject
from tests.provisioning.akash.test_reports import paid_leases, sound
from tests.provisioning.akash.worlds import QUICK, World, world

S = DeploymentState
HOUR_S = 3600.0


async def noticed(made: World, hours: float = 50.0, left_s: float = 1_000.0) -> Deployment:
    """A node that serves, whose provider takes its machine back in so many seconds."""
    spec = made.spec(hours=hours)
    made.sell(spec)
    await made.backend.launch(spec)
    (row,) = made.rows()
    reclaim_at = made.clock.now() + left_s
    made.ledger.write_now(lambda c: records.set_values(c, row.dseq, reclaim_at=reclaim_at))
    return made.rows()[0]


def groups_of(made: World, row: Deployment) -> tuple[GroupSpec, ...]:
    """What the deployment's create asked for."""
    sent = made.ledger.write_now(lambda c: transactions.latest(c, row.dseq, Subject.CREATE))
    assert sent is not None
    (message,) = tx.decode_tx(sent.raw).messages
    assert isinstance(message, CreateDeployment)
    return message.groups


def ends_at(row: Deployment) -> float:
    """When the node of this manifest ends by itself."""
    (group,) = msgspec.json.decode(row.manifest)
    (value,) = [one for one in group["services"][0]["env"] if "ENDS_AT=" in one]
    return float(value.partition("=")[2])


async def test_a_wide_successor_may_run_in_any_region(virtual_time: None) -> None:
    async with world(settings=msgspec.structs.replace(QUICK, region="us-west")) as made:
        old = await noticed(made)
        (asked,) = groups_of(made, old)
        assert [one.key for one in asked.requirements.attributes] == ["region"]
        placing = made.backend._placing
        for wide in (False, True):
            successor = await placing.create_like(old, f"{old.token}.{wide}", wide=wide)
            (asked,) = groups_of(made, successor)
            assert [one.key for one in asked.requirements.attributes] == ([] if wide else ["region"])
            assert successor.hash != old.hash


async def test_a_successor_of_a_session_that_was_extended_for_months_outlives_it(virtual_time: None) -> None:
    async with world() as made:
        old = await noticed(made, hours=1.0)
        extended = old.ends_at + 3 * 720 * HOUR_S
        await made.backend.extend(old.token, extended)
        old = made.rows()[0]
        assert ends_at(old) < extended, "the environment of what runs cannot be changed"
        successor = await made.backend._placing.create_like(old, old.token + SUCCESSOR, wide=False)
        assert ends_at(successor) > extended


async def test_that_no_successor_is_found_is_told_with_its_deadline_and_tried_again_while_there_is_time(
    virtual_time: None,
) -> None:
    async with world() as made:
        old = await noticed(made)
        for name in made.double.providers:
            made.faults(name, no_bids=True)
        replacing = made.backend._watching._replacing
        with capture_logs() as logs:
            for _ in range(2):  # the order, and a wide one
                assert await replacing.replace(old) is False
            made.double.make_blocks(20, 6.0)
            await trio.sleep(2 * made.settings.akash.poll_s)
            assert await replacing.replace(old) is False
        said = [line for line in logs if line["event"] == "akash_no_successor"]
        assert [(line["log_level"], line["ends_at"], line["reason"]) for line in said] == [
            ("error", old.reclaim_at, "no_bids")
        ]
        for name in made.double.providers:
            made.faults(name, no_bids=False)
        made.double.make_blocks(20, 6.0)
        await trio.sleep(2 * made.settings.akash.poll_s)
        assert await replacing.replace(old) is True
        assert [row.state for row in made.rows() if row.token == old.token] == [S.SERVING]
        assert paid_leases(made) == 1
        sound(made)


async def test_after_the_machine_was_taken_back_no_successor_is_begun(virtual_time: None) -> None:
    async with world() as made:
        old = await noticed(made)
        for name in made.double.providers:
            made.faults(name, no_bids=True)
        replacing = made.backend._watching._replacing
        for _ in range(2):
            await replacing.replace(old)
        past = made.clock.now() - 1.0
        made.ledger.write_now(lambda c: records.set_values(c, old.dseq, reclaim_at=past))
        made.double.make_blocks(20, 6.0)
        await trio.sleep(2 * made.settings.akash.poll_s)
        count = len(made.rows())
        assert await replacing.replace(made.rows()[0]) is False
        assert len(made.rows()) == count


async def test_what_gives_way_to_its_successor_is_no_orphan_of_the_gateway(virtual_time: None) -> None:
    """It is closed under a name that no node of the gateway has."""
    async with world() as made:
        old = await noticed(made)
        backend = made.backend
        listed: list[list[str]] = []
        drive = backend._placing.drive

        async def while_it_closes(row: Deployment) -> Deployment:
            if row.state is S.CLOSING:
                listed.append([node.token for node in await backend.list()])
            return await drive(row)

        backend._placing.drive = while_it_closes  # type: ignore[method-assign]
        assert await backend._watching._replacing.replace(old) is True
        assert listed == [[old.token]]
