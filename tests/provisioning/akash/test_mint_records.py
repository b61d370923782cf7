"""A mint is followed by its own record, whatever endpoints have indexed, and whenever the gateway was killed."""

from typing import Any

import msgspec
import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from engram.provisioning.akash import tables, transactions
from engram.provisioning.akash.minting import Minting
from engram.provisioning.akash.transactions import Subject, TxState
from tests.provisioning.akash.worlds import QUICK, World, world

MINTS = msgspec.structs.replace(QUICK, mint_akt=20.0)


def _states(here: World) -> list[str]:
    return here.ledger.write_now(
        lambda c: list(c.execute(select(tables.mints.c.state).order_by(tables.mints.c.created_at)).scalars())
    )


async def _until(here: World, minting: Minting, state: str) -> None:
    while _states(here) != [state]:
        await minting.look(too_little=False)
        here.double.make_blocks(1)


async def test_a_mint_that_no_endpoint_has_indexed_yet_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(settings=MINTS) as here:
        minting, asked = Minting(here.parts), here.parts.chain.answers_of
        unknown = [None, None]

        async def answers_of(name: str) -> Any:
            return unknown.pop() if unknown else await asked(name)

        monkeypatch.setattr(here.parts.chain, "answers_of", answers_of)
        before = here.balance()
        await minting.look(too_little=True)
        assert _states(here) == ["sent"]
        await minting.look(too_little=True)
        assert _states(here) == ["sent"]
        await _until(here, minting, "executed")
        assert here.balance() > before


async def test_a_mint_whose_transaction_never_came_is_given_up_after_a_kill() -> None:
    async with world(settings=MINTS) as here:
        minting = Minting(here.parts)
        await minting.look(too_little=True)
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
        await Minting(here.parts).look(too_little=False)
        assert _states(here) == ["refused"]


async def test_a_mint_that_the_chain_will_refund_as_too_little_is_told_before() -> None:
    async with world(settings=MINTS) as here:
        parts = here.make_parts(mint_akt=1.0, akt_usd=1.25)
        with capture_logs() as logs:
            await Minting(parts).look(too_little=True)
        (told,) = [log for log in logs if log["event"] == "akash_mint_is_little"]
        assert (told["about_uact"], told["least_uact"]) == (1_250_000, 10_000_000)
