"""Fees that the endpoints do not take: the operator is told, with the setting that mends it."""

from collections.abc import MutableMapping
from typing import Any

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from engram.provisioning import NoCapacity, Rejected
from engram.provisioning.akash import transactions
from engram.provisioning.akash.model import DeploymentState
from engram.provisioning.akash.transactions import TxState
from tests.provisioning.akash.test_reports import sound, until, watched
from tests.provisioning.akash.worlds import World, world


def dearer(made: World, gas_price: float = 0.05) -> None:
    """Let every endpoint ask for more than the setting says."""
    state = made.double.chain.state
    state.params = msgspec.structs.replace(state.params, min_gas_price=gas_price)


def said(logs: list[MutableMapping[str, Any]], event: str) -> list[MutableMapping[str, Any]]:
    return [line for line in logs if line["event"] == event]


async def test_a_fee_below_what_endpoints_take_is_told_with_the_setting_that_raises_it(virtual_time: None) -> None:
    async with world() as made:
        dearer(made)
        with capture_logs() as logs, pytest.raises((NoCapacity, Rejected)):
            await made.backend.launch(made.spec())
        row = made.rows()[0]
        assert row.state is DeploymentState.CLOSED
        assert row.reason == "not_created"
        assert "insufficient fees" in row.logs
        sent = made.ledger.write_now(lambda c: transactions.of_deployment(c, row.dseq))
        assert {(one.state, one.codespace, one.code) for one in sent} == {(TxState.EXPIRED, "sdk", 13)}
        lines = said(logs, "akash_fee_too_low")
        assert len(lines) == sum(
            len(made.ledger.write_now(lambda c, d=one.dseq: transactions.of_deployment(c, d)))  # type: ignore[misc]
            for one in made.rows()
        ), "once for each transaction"
        assert {(line["log_level"], line["setting"]) for line in lines} == {("error", "akash.gas_price")}
        sound(made)


async def test_a_close_that_does_not_come_through_is_told_of_until_it_does(virtual_time: None) -> None:
    async with world() as made:
        spec = made.spec(hours=50.0)
        await made.backend.launch(spec)
        dearer(made)
        with capture_logs() as logs:
            async with watched(made.backend), trio.open_nursery() as nursery:
                nursery.start_soon(made.backend.destroy, spec.token)
                await until(lambda: bool(said(logs, "akash_close_is_slow")), 60.0)
                line = said(logs, "akash_close_is_slow")[0]
                assert (line["log_level"], line["dseq"]) == ("error", made.rows()[0].dseq)
                assert line["closing_s"] >= 300
                dearer(made, 0.0025)
                await until(lambda: made.rows()[0].state is DeploymentState.CLOSED, 120.0)
        assert any("insufficient fees" in line["reason"] for line in said(logs, "akash_close_is_slow"))
        assert made.active() == []
        sound(made)
