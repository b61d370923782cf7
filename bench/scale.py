"""PostgreSQL beside SQLite, fsync on, and what many sessions cost there.

(1) A session and its first event in a transaction, 64 callers, through each ledger's own writer thread, in turns.
(2) 200,000 running sessions: what a reservation reads of the places taken and the hotkey's sessions, and how long the
writer is held by a checkpoint of paid time, or by its look at what gateways that are gone have left. (3) A process that
owns a row is killed: seconds from the end of its lease until another has taken the row over. (4) Phones buy (as in
bench/purchase.py) from a gateway on SQLite, from one on PostgreSQL, and from two that share a ledger there, in turns:
CPU of the gateways for a purchase.
`python -m bench.scale [--quick]`. Needs Debian's `postgresql`.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import trio
from sqlalchemy import Connection, text

from bench import purchase
from bench.support.report import print_line
from engram.durable import CommitThread, Outcome, Writer, WriteRequest
from engram.ledger import LEDGER_FILE
from engram.ledger.connection import LEDGER
from engram.ledger.postgres.server import PostgresServer
from engram.sessions import Session, SessionState, SystemInstants, TierName, counts, paid_clock
from engram.sessions import records as session_records
from tests.postgres import Cluster, cluster, rows

QUICK: Final = "--quick" in sys.argv
CALLERS: Final = 64
ROUNDS: Final = 3 if QUICK else 7
ROUND_S: Final = 1.0 if QUICK else 2.0
SESSIONS: Final = 20_000 if QUICK else 200_000
READS: Final = 200
KILLS: Final = 3 if QUICK else 20
TTL_S: Final = 2.0
WANTED: Final = {
    "group_commit_vs_sqlite_64": ">= 1.0",
    "takeover_s_p99": "<= 3.0",
    "reserve_sql_ms_200k": "<= 1",
    "writer_stall_200k_ms": "<= 50",
    "cpu_ms_per_purchase_more_than_sqlite": "<= 1.5",
    "cpu_per_purchase_2_gateways_vs_1": "<= 1.15",
}
HOLDER: Final = """
import sys, trio
from engram.durable import WriteRequest
from engram.ledger.postgres.server import PostgresServer
from bench.scale import owned
async def main():
    writer = PostgresServer(sys.argv[1], ttl_s=float(sys.argv[2])).open_writer(lambda error: None, lambda group: None)
    writer.start()
    await writer.write(owned(sys.argv[3]))
    print("owned", flush=True)
    await trio.sleep_forever()
trio.run(main)
"""


def session(session_id: str) -> Session:
    return Session(
        id=session_id,
        controller=b"\1" * 32,
        state=SessionState.PAYMENT_PENDING,
        tier=TierName.LITE,
        paid_s=3600.0,
        amount_usd_micros=100_000,
        network="play",
        payment_id="p",
        created_at=1.0,
    )


def owned(session_id: str) -> Callable[[Connection], None]:
    """Add a session that the process owns, with the first event of its history."""
    return lambda connection: session_records.insert_session(connection, session(session_id))


class Answered:
    """Waits for one outcome."""

    def __init__(self) -> None:
        self.event = trio.Event()

    def deliver(self, outcome: Outcome) -> None:
        """Wake who waits; a transaction that failed ends the benchmark."""
        if outcome.error is not None:
            raise outcome.error
        self.event.set()


async def committed_a_second(writer: CommitThread[Connection], name: str) -> float:
    """Facts a second by `CALLERS` tasks, each of which waits for its COMMIT."""
    done = 0
    deadline = trio.current_time() + ROUND_S

    async def call(caller: int) -> None:
        nonlocal done
        number = 0
        while trio.current_time() < deadline:
            answered = Answered()
            writer.submit(WriteRequest(owned(f"{name}-{caller}-{number}"), answered.deliver))
            await answered.event.wait()
            number, done = number + 1, done + 1

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for caller in range(CALLERS):
            nursery.start_soon(call, caller)
    return done / (trio.current_time() - began)


async def compare(folder: Path, url: str) -> tuple[float, float]:
    """Return the medians of SQLite and PostgreSQL."""
    sqlite: CommitThread[Connection] = Writer(LEDGER, folder / LEDGER_FILE)
    postgres = PostgresServer(url).open_writer(lambda error: None, lambda group: None)
    found: dict[str, list[float]] = {"sqlite": [], "postgres": []}
    for number in range(ROUNDS):
        for name, writer in (("sqlite", sqlite), ("postgres", postgres)):
            writer.start()
            found[name].append(await committed_a_second(writer, f"{name}{number}"))
    sqlite.close()
    postgres.close()
    return statistics.median(found["sqlite"]), statistics.median(found["postgres"])


def many(url: str) -> tuple[float, float]:
    """Return the ms of what a reservation reads, and the longest of a checkpoint or a look at what is left, with
    `SESSIONS` running ones of two gateways."""
    server = PostgresServer(url)
    other, writer = (PostgresServer(url).open_writer(lambda error: None, lambda group: None) for _ in range(2))
    link = server.open_inline()
    now = SystemInstants().now()
    link.handle.execute(
        text(
            "INSERT INTO sessions (id, controller, state, tier, paid_s, amount_usd_micros, network, payment_id, "
            "created_at, counted_from, owner_epoch) "
            "SELECT 's' || n, decode(lpad(to_hex(n / 3), 64, '0'), 'hex'), 'active', 'lite', "
            "1e6, 1, 'play', 'p' || n, 1, 0, 1 + n % 2 FROM generate_series(1, :count) AS n"
        ),
        {"count": SESSIONS},
    )
    link.handle.execute(text("UPDATE session_counts SET sessions = :count WHERE state = 'active'"), {"count": SESSIONS})
    link.handle.exec_driver_sql("ANALYZE")

    def timed(work: Callable[[], object]) -> float:
        began = time.perf_counter()
        work()
        link.ahead.leave()
        return (time.perf_counter() - began) * 1000

    reads = [timed(partial(counts.taken, link.handle, n.to_bytes(32, "big"))) for n in range(READS)]
    stalls = [timed(lambda: paid_clock.checkpoint(link.handle, now)) for _ in range(READS)]
    stalls += [timed(writer._look) for _ in range(READS)]
    link.close()
    writer.close()
    other.close()
    return statistics.median(reads), max(stalls)


def start_and_kill(command: list[str]) -> None:
    """Start a process that owns a row, and kill it once it does."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.kill()


async def take_over(url: str) -> list[float]:
    """Return the seconds from the end of each killed process's lease until its row had another owner."""
    server = PostgresServer(url, ttl_s=TTL_S)
    writer = await trio.to_thread.run_sync(server.open_writer, lambda error: None, lambda group: None)
    writer.start()
    assert server.lease is not None
    took: list[float] = []
    query = (
        "SELECT extract(epoch FROM clock_timestamp() - g.expires_at)::float FROM sessions s, gateways g "
        "WHERE s.id = '{id}' AND s.owner_epoch = {me} AND g.epoch = {holder}"
    )
    for number in range(KILLS):
        command = [sys.executable, "-c", HOLDER, url, str(TTL_S), f"held-{number}"]
        await trio.to_thread.run_sync(start_and_kill, command)
        ((epoch,),) = rows(url, f"SELECT owner_epoch FROM sessions WHERE id = 'held-{number}'")
        asked = query.format(id=f"held-{number}", me=server.lease.epoch, holder=epoch)
        while not (found := await trio.to_thread.run_sync(partial(rows, url, asked))):  # noqa: ASYNC110 - the server is asked
            await trio.sleep(0.02)
        took.append(float(str(found[0][0])))
    await trio.to_thread.run_sync(writer.close)
    return took


def purchases(server: Cluster, folder: Path) -> tuple[float, float, float]:
    """Return the CPU ms of a purchase: with SQLite, with PostgreSQL, and there with two gateways."""
    alone, shared = server.new_ledger(), server.new_ledger()
    with ExitStack() as stack:

        def started(command: list[str]) -> tuple[int, dict[str, str]]:
            process, said = purchase.start(command)
            stack.callback(purchase.end, process)
            return process.pid, said

        _, said = started([*purchase.FACILITATOR, "--data-dir", str(folder / "facilitator"), "--ready-fd"])
        shops = []
        for name, ledger_url in (("sqlite", ""), ("alone", alone), ("one", shared), ("two", shared)):
            (folder / name).mkdir()
            command = purchase.gateway_command(said["facilitator_url"], folder / name, ledger_url)
            pid, ready = started(command)
            shops.append(purchase.Shop(ready["gateway_url"], pid))
        trio.run(buy_in_turns, shops)
    sqlite, one, *two = (statistics.fmean(shop.cpu_ms) for shop in shops)
    return sqlite, one, statistics.fmean(two)


async def buy_in_turns(shops: list[purchase.Shop]) -> None:
    """Rounds of each shop by itself, but of the last two, which share a ledger, at once."""
    for shop in shops:
        await shop.open()
    for number in range(purchase.ROUNDS):
        turns = [shops[:1], shops[1:2], shops[2:]]
        for turn in turns[:: -1 if number % 2 else 1]:
            async with trio.open_nursery() as nursery:
                for shop in turn:
                    nursery.start_soon(shop.round)


@contextmanager
def measured(server: Cluster) -> Iterator[tuple[Path, str]]:
    with tempfile.TemporaryDirectory(prefix="engram-bench-") as name:
        yield Path(name), server.new_ledger()


def main() -> None:
    """Measure, and print the line."""
    with ExitStack() as stack:
        server = stack.enter_context(cluster())
        folder, url = stack.enter_context(measured(server))
        sqlite, postgres = trio.run(compare, folder, url)
        reserve_ms, stall_ms = many(server.new_ledger())
        took = sorted(trio.run(take_over, server.new_ledger()))
        sqlite_ms, one_ms, two_ms = purchases(server, folder)
    print_line(
        "scale",
        {
            "sqlite_facts_per_s_64": sqlite,
            "postgresql_facts_per_s_64": postgres,
            "reserve_sql_ms_200k": None if QUICK else reserve_ms,
            "writer_stall_200k_ms": None if QUICK else stall_ms,
            "takeover_s_p50": statistics.median(took),
            "takeover_s_p99": took[-1],
            "cpu_ms_per_purchase_sqlite": sqlite_ms,
            "cpu_ms_per_purchase": one_ms,
            "cpu_ms_per_purchase_more_than_sqlite": one_ms - sqlite_ms,
            "cpu_ms_per_purchase_2_gateways": two_ms,
            "load": os.getloadavg()[0],
        },
        {},
        {"group_commit_vs_sqlite_64": postgres / sqlite, "cpu_per_purchase_2_gateways_vs_1": two_ms / one_ms},
        WANTED,
    )


if __name__ == "__main__":
    main()
