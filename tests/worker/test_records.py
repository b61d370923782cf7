"""Jobs in the ledger: what a list of them reads."""

import tracemalloc

from engram.ledger import open_inline
from engram.worker import records
from engram.worker.model import JobRow, ListedJob


def test_a_list_of_jobs_reads_neither_payloads_nor_results() -> None:
    ledger, result = open_inline(), b"x" * 1_000_000
    for number in range(20):
        name = str(number)
        row = JobRow(id=name, kind="k", state="running", request_hash=b"h", payload=b"", created_at=0.0)
        ledger.write_now(lambda c, row=row: records.begin(c, "o", row))  # type: ignore[misc]
        ledger.write_now(lambda c, name=name: records.end(c, "o", name, outcome="done", result=result, at=1.0))  # type: ignore[misc]
    waiting = JobRow(id="w", kind="k", state="accepted", request_hash=b"h", payload=result, created_at=2.0)
    ledger.write_now(lambda c: records.begin(c, "o", waiting))
    ledger.write_now(lambda c: records.newest(c, 200))  # what is made once is made
    tracemalloc.start()
    try:
        found = ledger.write_now(lambda c: records.newest(c, 200))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found) == 21
    assert found[1] == ListedJob(
        id="19",
        type="k",
        state="done",
        outcome="done",
        result_bytes=1_000_000,
        created_at=0.0,
        ended_at=1.0,
        acknowledged_at=None,
    )
    assert peak < 500_000
    assert [each.id for each in ledger.write_now(lambda c: records.newest(c, 200, "accepted"))] == ["w"]
    ledger.close()
