"""One truth of whether anything can be sold: the price, /nodes, /ready, the metric and the log say the same."""

import os
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from engram.clock import ManualClock
from engram.gateway import probes, sales_check
from engram.gateway.rules import CODES, LEAST_FREE_BYTES, SalesFacts
from engram.gateway.sales_check import Conditions, Disk, Sales
from engram.gateway.sales_switch import KEPT_S, Selling
from engram.ledger import open_inline
from engram.payments.purchase_answer import NoRoom
from engram.telemetry.metrics import Metrics
from tests.gateway.surface import running_gateway
from tests.gateway.test_purchases import assert_error

BODY = {"tier": "lite", "duration_hours": 1}


class World:
    """What a sale depends on, as a test sets it."""

    def __init__(self) -> None:
        self.keys: int | None = 3
        self.free = LEAST_FREE_BYTES
        self.facilitator: NoRoom | None = None
        self.chain: bool | None = None

    def conditions(self, fixed: SalesFacts | None = None) -> Conditions:
        async def free_bytes() -> int:
            return self.free

        return Conditions(
            fixed=fixed or SalesFacts(),
            usable_keys=lambda: self.keys,
            places=lambda: 10,
            free_bytes=free_bytes,
            chain_read=lambda: self.chain,
            facilitator=lambda amount: self.facilitator,
        )


def set_keys(world: World) -> None:
    world.keys = 0


def fill_disk(world: World) -> None:
    world.free = 0


def lose_facilitator(world: World) -> None:
    world.facilitator = NoRoom("facilitator_unavailable", "not now", 7)


@pytest.mark.parametrize(
    ("change", "code", "lasting"),
    [
        (set_keys, "no_hotkeys", True),
        (fill_disk, "disk_full", True),
        (lose_facilitator, "facilitator_unavailable", False),
    ],
)
async def test_what_cannot_be_sold_is_not_quoted_and_everything_says_why(change: Any, code: str, lasting: bool) -> None:
    world = World()
    async with running_gateway(conditions=world.conditions()) as gateway:
        price = await gateway.ask("POST", "/sessions", BODY)
        assert price.status_code == 402
        paid = gateway.payment(price)
        change(world)
        answer = await gateway.ask("POST", "/sessions", BODY)
        body = assert_error(answer, 503, code=code)
        assert int(answer.headers["Retry-After"]) > 0
        assert_error(await gateway.ask("POST", "/sessions", BODY, headers=paid), 503, code=code)
        nodes = (await gateway.client.get(gateway.url + "/nodes")).json()
        assert (nodes["available"], nodes["cannot_sell"]) == (False, [{"code": code, "message": body["error"]}])
        for url in (gateway.url, gateway.ops_url):
            assert (await gateway.client.get(url + "/ready")).json()["cannot_sell"] == nodes["cannot_sell"]
        assert bool(await probes.sales_probe(gateway.services.shop.sales)()) is lasting
        assert gateway.facilitator.settled == []


async def test_a_gateway_that_is_just_full_is_well_and_says_so() -> None:
    async with running_gateway(places=1) as gateway:
        await gateway.buy()
        ready = (await gateway.client.get(gateway.url + "/ready")).json()
        assert [reason["code"] for reason in ready["cannot_sell"]] == ["no_capacity"]
        assert await probes.sales_probe(gateway.services.shop.sales)() == ""


async def test_a_ledger_that_cannot_be_read_is_its_own_probes_affair() -> None:
    async with running_gateway() as gateway:
        gateway.ledger.close()
        assert await probes.sales_probe(gateway.services.shop.sales)() == ""
        assert (await gateway.client.get(gateway.url + "/ready")).status_code == 503


async def test_every_code_is_a_gauge_that_goes_up_and_down() -> None:
    world, ledger, metrics = World(), open_inline(), Metrics()
    found = Sales(ledger, Selling(ledger, default=True), world.conditions())
    for keys in (0, 3):
        world.keys = keys
        await found.measure(metrics)
        text = metrics.render().decode()
        assert f'engram_sales_blocked{{reason="no_hotkeys"}} {float(keys == 0)}' in text
        assert text.count("engram_sales_blocked{") == len(CODES)
    ledger.close()


class Started:
    """A job's context, as far as the watch uses it."""

    def ready(self, info: object = None) -> None: ...


async def test_the_log_says_at_start_and_at_each_change_why_nothing_can_be_sold(autojump_clock: object) -> None:
    world, ledger = World(), open_inline()
    world.keys = 0
    found = Sales(ledger, Selling(ledger, default=True), world.conditions())
    context: Any = Started()
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(found.watch, context)
            await trio.sleep(60)
            assert [(line["event"], line["log_level"], line["code"]) for line in logs] == [
                ("cannot_sell", "warning", "no_hotkeys")
            ]
            assert "engram hotkeys pool add" in logs[0]["reason"]
            world.keys = 3
            await trio.sleep(60)
            lose_facilitator(world)
            await trio.sleep(60)
            ledger.close()
            await trio.sleep(sales_check.LOOK_EVERY_S)
            nursery.cancel_scope.cancel()
    assert [(line["event"], line["log_level"]) for line in logs[1:4]] == [
        ("sales_open", "info"),
        ("cannot_sell", "info"),
        ("sales_unknown", "warning"),
    ]
    assert isinstance(context, Started)


async def test_the_free_space_is_looked_at_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    disk = Disk(tmp_path, clock)
    first = await disk.free_bytes()
    assert first is not None
    assert first > 0

    def gone(path: Path) -> None:
        raise OSError("gone")

    monkeypatch.setattr(os, "statvfs", gone)
    assert await disk.free_bytes() == first
    clock.advance(sales_check.DISK_KEPT_S)
    assert await disk.free_bytes() is None


async def test_a_switch_that_another_gateway_of_the_ledger_used_is_seen_within_a_second(autojump_clock: object) -> None:
    ledger = open_inline()
    here, there = Selling(ledger, default=True), Selling(ledger, default=True)
    for on in (False, True):
        assert await here.is_on() is not on
        await there.switch(on=on)
        assert await there.is_on() is on
        await trio.sleep(KEPT_S)
        assert await here.is_on() is on
    ledger.close()
