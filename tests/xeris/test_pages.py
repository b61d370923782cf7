"""What anybody may list costs the receiver little memory: pages bounded in bytes, summaries without documents."""

import tracemalloc
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection, event, insert

from engram.xeris import records
from engram.xeris.app import PAGE_BYTES
from engram.xeris.records import Wanted
from engram.xeris.tables import accepted
from tests.xeris.test_judging import ONE
from tests.xeris.test_receiver import Bench, bench

__all__ = ("bench",)

LARGE = 400_000
SUMMARIES_TAKE = 1_000_000


def keep(connection: Connection, number: int, size: int, kind: str = "memory") -> None:
    row = {
        "kind": kind,
        "nonce": f"{number}:nodes:1",
        "netuid": 450,
        "block": number,
        "source": "nodes",
        "signer": ONE.public_key,
        "signers": 1,
        "output_hash": "ab" * 32,
        "signed_hash": f"{number:064x}",
        "round_ts": 1.0,
        "document": msgspec.json.encode({"text": "x" * size}),
        "acknowledgement": b"{}",
        "received_at": 1.0,
    }
    connection.execute(insert(accepted).values(row))


async def pages(bench: Bench, limit: int) -> list[list[dict[str, Any]]]:
    found, before = list[list[dict[str, Any]]](), ""
    while True:
        status, page = await bench.get(f"/intelligence?limit={limit}{before}")
        assert status == 200
        found.append(page["items"])
        if page["next"] is None:
            return found
        before = f"&before={page['next']}"


async def test_a_page_of_large_documents_is_short_and_the_pages_have_each_of_them_once(bench: Bench) -> None:
    for number in range(1, 11):
        bench.ledger.write_now(lambda c, n=number: keep(c, n, LARGE))  # type: ignore[misc]
    found = await pages(bench, 100)
    assert [item["block"] for page in found for item in page] == list(range(10, 0, -1))
    assert {len(msgspec.json.encode(page)) <= PAGE_BYTES + 2_000 for page in found} == {True}
    assert [len(page) for page in found] == [2] * 5


async def test_a_document_larger_than_a_page_is_a_page(bench: Bench) -> None:
    for number, size in ((1, 10), (2, PAGE_BYTES + 10), (3, 10)):
        bench.ledger.write_now(lambda c, n=number, s=size: keep(c, n, s))  # type: ignore[misc]
    assert [[item["block"] for item in page] for page in await pages(bench, 100)] == [[3], [2], [1]]


async def test_small_documents_fill_a_page_to_its_limit(bench: Bench) -> None:
    for number in range(1, 8):
        bench.ledger.write_now(lambda c, n=number: keep(c, n, 10))  # type: ignore[misc]
    assert [len(page) for page in await pages(bench, 3)] == [3, 3, 1]
    assert await bench.ledger.read(lambda c: records.page(c, 451, None, 3, PAGE_BYTES)) == ([], None)


@pytest.mark.parametrize("kind", [None, "memory"])
@pytest.mark.parametrize("netuid", [450, 451])
async def test_whatever_is_listed_is_found_by_its_index_however_much_is_kept_of_other_subnets(
    bench: Bench, kind: str | None, netuid: int
) -> None:
    plans = list[str]()

    def explain(*given: Any) -> None:
        _, cursor, statement, parameters, *_ = given
        plans.extend(row[3] for row in cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))

    event.listen(bench.ledger.handle, "before_cursor_execute", explain)
    for before in (None, 7):
        bench.ledger.read_now(lambda c, b=before: records.page(c, netuid, kind, 20, PAGE_BYTES, before_id=b))  # type: ignore[misc]
        wanted = Wanted(netuid=netuid, kind=kind, before_id=before)
        bench.ledger.read_now(lambda c, w=wanted: records.search(c, w, 20))  # type: ignore[misc]
    bench.ledger.read_now(lambda c: records.later(c, netuid, kind, 7, 20))
    looks = [plan for plan in plans if "xeris_accepted" in plan]
    by_number = "SEARCH xeris_accepted USING INTEGER PRIMARY KEY (rowid=?)"
    assert [plan for plan in looks if "ix_xeris_accepted_newest (netuid=? AND kind=?" not in plan] == [by_number] * 2


async def test_kinds_are_listed_together_in_the_order_in_which_they_came(bench: Bench) -> None:
    for number in range(1, 13):
        kind = ("memory", "scores", "gap", "ranking")[number % 4]
        bench.ledger.write_now(lambda c, n=number, k=kind: keep(c, n, 10, k))  # type: ignore[misc]
    read = bench.ledger.read_now
    assert [each.id for each in read(lambda c: records.page(c, 450, None, 5, PAGE_BYTES))[0]] == [12, 11, 10, 9, 8]
    assert [each.id for each in read(lambda c: records.search(c, Wanted(netuid=450, before_id=9), 3))] == [8, 7, 6]
    assert [each.id for each in read(lambda c: records.search(c, Wanted(netuid=450, kind="gap"), 9))] == [10, 6, 2]
    assert [each.id for each in read(lambda c: records.later(c, 450, None, 4, 3))] == [5, 6, 7]


async def test_summaries_read_no_documents(bench: Bench) -> None:
    for number in range(1, 51):
        bench.ledger.write_now(lambda c, n=number: keep(c, n, LARGE))  # type: ignore[misc]
    tracemalloc.start()
    try:
        found = bench.ledger.read_now(lambda c: records.search(c, Wanted(netuid=450), 50))
        later = bench.ledger.read_now(lambda c: records.later(c, 450, None, 0, 50))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(found), len(later)) == (50, 50)
    assert peak < SUMMARIES_TAKE
