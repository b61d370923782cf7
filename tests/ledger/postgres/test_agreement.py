"""Gateways of one ledger that are set differently."""

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import pytest
import structlog.testing
import trio
from sqlalchemy import Connection, select

from engram.ledger import LedgerError, LedgerUnavailable, agreement
from engram.ledger.agreement import Difference, compare
from engram.ledger.inline import open_inline
from engram.ledger.tables import meta
from tests.ledger.postgres.test_gateways import grown, running
from tests.postgres import needs_postgresql

pytestmark = needs_postgresql
ONE: Mapping[str, str] = {"payments.recipient": "0xaa", "ledger.lease_s": "10.0"}
OTHER: Mapping[str, str] = {"payments.recipient": "0xbb", "ledger.lease_s": "10.0"}


async def test_a_setting_that_another_gateway_has_otherwise_is_found_until_that_one_ends(url: str) -> None:
    fatal: list[LedgerError] = []
    async with running(url, fatal, ttl_s=2.0) as first:
        assert await first.write(partial(compare, here=ONE)) == []
        async with running(url, fatal) as same, running(url, fatal) as other:
            assert await same.write(partial(compare, here=ONE)) == []
            found = await other.write(partial(compare, here=OTHER))
            assert {(each.setting, each.here, each.there) for each in found} == {("payments.recipient", "0xbb", "0xaa")}
            assert len(found) == 2
            assert len(await first.write(partial(compare, here=ONE))) == 1
        assert await first.write(partial(compare, here=ONE)) == []
        kept = select(meta.c.key).where(meta.c.key.like("common_settings:%"))
        assert len(await first.read(lambda c: c.execute(kept).all())) == 1


class _Started:
    def ready(self) -> None:
        pass


async def test_a_difference_is_logged_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "LOOK_S", 0.0)
    looks: list[str] = []
    compared = agreement.compare

    def counted(connection: Connection, here: Mapping[str, str]) -> list[Difference]:
        looks.append("look")
        if len(looks) == 2:
            raise LedgerUnavailable("the server is away")
        return compared(connection, here)

    monkeypatch.setattr(agreement, "compare", counted)
    async with running(url, []) as one, running(url, []) as other, trio.open_nursery() as nursery:
        await one.write(partial(compared, here=ONE))
        with structlog.testing.capture_logs() as logs:
            nursery.start_soon(agreement.tell_differences, other, OTHER, cast(Any, _Started()))
            await grown(looks, 5)
        nursery.cancel_scope.cancel()
    told = [(line["event"], line.get("setting")) for line in logs]
    assert told == [("gateways_differ", "payments.recipient"), ("gateways_not_compared", None)]


def test_a_process_that_has_the_ledger_for_itself_notes_nothing() -> None:
    ledger = open_inline()
    assert ledger.write_now(partial(compare, here=ONE)) == []
    assert ledger.write_now(lambda c: c.execute(select(meta).where(meta.c.key.like("common%"))).all()) == []
    ledger.close()
