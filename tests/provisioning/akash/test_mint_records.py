"""A mint is followed by its own record, whatever endpoints have indexed, and whenever the gateway was killed."""

from functools import partial
from typing import Any

import msgspec
import pytest
import trio
from sqlalchemy import select
from structlog.testing import capture_logs

from engram.provisioning.akash import tables, transactions
from engram.provisioning.akash.minting import Minting
from engram.provisioning.akash.transactions import Subject, TxState
from tests.provisioning.akash.killed_gateway import looked
from tests.provisioning.akash.worlds import QUICK, World, world

MINTS = msgspec.structs.replace(QUICK, mint_akt=20.0)


def _states(here: World) -> list[str]:
    return here.ledger.write_now(
        lambda c: list(c.execute(select(tables.mints.c.state).order_by(tables.mints.c.created_at)).scalars())
    )


async def _until(here: World, minting: Minting, state: str) -> None:
    while _states(here) != [state]:
        await _look(here, minting, too_little=False)
        here.double.make_blocks(1)


async def _look(here: World, minting: Minting, *, too_little: bool) -> None:
    await looked(here.parts, partial(minting.look, too_little=too_little))


async def test_a_mint_that_no_endpoint_has_indexed_yet_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(settings=MINTS) as here:
        minting, asked = Minting(here.parts), here.parts.chain.answers_of
        unknown = [None, None]

        async def answers_of(name: str) -> Any:
            return unknown.pop() if unknown else await asked(name)

        monkeypatch.setattr(here.parts.chain, "answers_of", answers_of)
        before = here.balance()
        await _look(here, minting, too_little=True)
        assert _states(here) == ["sent"]
        await _look(here, minting, too_little=True)
        assert _states(here) == ["sent"]
        await _until(here, minting, "executed")
        assert here.balance() > before


async def test_a_mint_whose_transaction_never_came_is_given_up_after_a_kill() -> None:
    async with world(settings=MINTS) as here:
        minting = Minting(here.parts)
        await _look(here, minting, too_little=True)
        sent = here.ledger.write_now(lambda c: c.execute(select(tables.mints.c.hash)).scalar_one())
        here.ledger.write_now(
            lambda c: (
                c.execute(tables.mints.update().values(state="sent", record=None)),
                c.execute(tables.transactions.update().values(state=str(TxState.EXPIRED))),
            )
        )
        found = here.ledger.write_now(lambda c: transactions.get(c, sent))
        assert found is not None
        assert found.subject is Subject.MINT
        await _look(here, Minting(here.parts), too_little=False)
        assert _states(here) == ["refused"]


async def test_gateways_that_share_a_ledger_mint_once() -> None:
    async with world(settings=MINTS) as here:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(partial(_look, here, Minting(here.make_parts()), too_little=True))
        assert len(_states(here)) == 1


async def test_an_open_mint_keeps_others_from_beginning_whatever_the_gateways_clocks_say() -> None:
    async with world(settings=MINTS) as here:
        minting = Minting(here.parts)
        await _look(here, minting, too_little=True)
        await _until(here, minting, "executed")
        ahead = here.clock.now() + 600.0
        here.ledger.write_now(lambda c: c.execute(tables.mints.update().values(created_at=ahead)))
        for _ in range(3):
            await _look(here, Minting(here.make_parts()), too_little=True)
        assert sorted(_states(here)) in (["executed", "pending"], ["executed", "sent"])


async def test_a_mint_that_the_chain_will_refund_as_too_little_is_told_before() -> None:
    async with world(settings=MINTS) as here:
        parts = here.make_parts(mint_akt=1.0, akt_usd=1.25)
        with capture_logs() as logs:
            await _look(here, Minting(parts), too_little=True)
        (told,) = [log for log in logs if log["event"] == "akash_mint_is_little"]
        assert (told["about_uact"], told["least_uact"]) == (1_250_000, 10_000_000)


async def test_a_mint_is_found_behind_more_than_a_page_of_older_ones() -> None:
    async with world(settings=MINTS) as here:
        minting, mints = Minting(here.parts), here.double.chain.state.mints
        await minting.look(too_little=True)
        await _until(here, minting, "executed")
        ((_, row),) = mints.items()
        for sequence in range(250):
            mints.put((0, sequence), msgspec.structs.replace(row, height=0, sequence=sequence))
        here.double.make_blocks(3)
        assert len(await here.parts.chain.mint_records("executed")) == 251
        here.ledger.write_now(lambda c: c.execute(tables.mints.delete()).rowcount)
        await minting.look(too_little=True)
        await _until(here, minting, "executed")
