"""Akash: what it costs to make and sign the transaction that creates a deployment, beside cosmjs on the same message;
and the backend on the double (a process of its own, stub nodes, blocks of a second).

`sessions_per_minute` is with the settings that the package has: `akash.creates_per_block` caps it
(`sessions_per_minute_cap`, at the double's blocks of a second), and bids are waited for as they are on the network.
`sessions_per_minute_without_waits` has no cap and takes the first bid, as all other figures: they are of what the
program itself does, which those waits would hide.

Times are of the CPU where their name says so; a peer that is not installed (scripts/setup-node) is null.
`time_to_ready_s` is what a launch takes beyond what the double measured that it made everybody wait: for the block of a
transaction and its index, for the first bid, and until the provider had seen the lease.
"""

import json
import shutil
import statistics
import subprocess
import sys
import time
from functools import partial

import trio

from bench.support import akash_world
from bench.support.report import print_line
from engram.http.client import HttpClient
from engram.ledger.inline import open_inline
from engram.provisioning.akash import account, messages, numbering, records, tx
from engram.provisioning.akash.backend import AkashBackend
from engram.provisioning.akash.cosmos import Coin
from engram.provisioning.akash.messages import Message
from engram.provisioning.akash.model import Deployment, DeploymentState
from engram.provisioning.akash.ports import AkashParts, Wish
from engram.provisioning.akash.reconciling import Reconciler
from engram.provisioning.akash.transactions import Outgoing, Subject, TxState
from tests.evm import node
from tests.provisioning.akash.vectors import public_mnemonic, vectors

QUICK = "--quick" in sys.argv
ROUNDS = 100 if QUICK else 1_000
REPEATS = 3 if QUICK else 7
SESSIONS = 10 if QUICK else 60
DEPLOYMENTS = 200 if QUICK else 2_000
A_TRANSACTION = 25
BLOCK_S = 1.0
LAG_EVERY_S = 0.005
WANTED = {
    "sign_tx_ms": "<= 2",
    "time_to_ready_s": "<= 2",
    "cpu_ms_per_session": "<= 60",
    "reconcile_s": "<= 5",
    "loop_lag_p99_ms": "<= 20",
}


def message() -> Message:
    """Return the deployment of a node of the tier lite, as a peer made it."""
    (created,) = tx.decode_tx(bytes.fromhex(vectors("peer-tx-vectors")["cases"][0]["tx_raw"])).messages
    return created


def sign_tx_ms() -> float:
    """Return milliseconds of CPU for a transaction, message included."""
    signer = account.Signer(account.secret_of(public_mnemonic()))
    wanted, fee, of = (message(),), tx.fee_of(400_000), tx.Account(1)
    started = time.thread_time()
    for number in range(ROUNDS):
        tx.sign(wanted, tx.Unordered(1_790_000_000_000_000_000 + number), fee, of, signer)
    return (time.thread_time() - started) * 1000 / ROUNDS


def cosmjs_sign_tx_ms() -> float | None:
    """Return milliseconds of CPU for the same by cosmjs; None where it is not installed."""
    if shutil.which("node") is None or not (node.FOLDER / "node_modules" / "@cosmjs").is_dir():
        return None
    packed = messages.pack(message())
    question = {
        "mnemonic": public_mnemonic(),
        "type_url": packed.type_url,
        "value": packed.value.hex(),
        "rounds": ROUNDS,
    }
    done = subprocess.run(
        ["node", "signing_speed.mjs"],
        cwd=node.FOLDER,
        input=json.dumps(question),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return float(done.stdout)


async def launches(double: akash_world.Running) -> dict[str, float]:
    """Return the figures of one launch, and of many at once."""
    ledger, http = open_inline(), HttpClient()
    try:
        parts = akash_world.parts(ledger, http, akash_world.without_waits(double.endpoints))
        backend = AkashBackend(parts)
        alone, beyond = [], []
        for number in range(1 if QUICK else 3):
            started = trio.current_time()
            node = await backend.launch(akash_world.spec(parts.ledger_id, number))
            alone.append(trio.current_time() - started)
            beyond.append(alone[-1] - await trio.to_thread.run_sync(double.waits_s, int(node.store)))
        elapsed, cpu = await many(backend, parts.ledger_id, 1_000)
        shipped = akash_world.parts(ledger, http, akash_world.as_shipped(double.endpoints))
        as_shipped, _ = await many(AkashBackend(shipped), parts.ledger_id, 2_000)
        return {
            "time_to_ready_s": statistics.median(beyond),
            "launch_s": statistics.median(alone),
            "sessions_per_minute": SESSIONS / as_shipped * 60.0,
            "sessions_per_minute_cap": shipped.creates_per_block / BLOCK_S * 60.0,
            "sessions_per_minute_without_waits": SESSIONS / elapsed * 60.0,
            "cpu_ms_per_session": cpu * 1000 / SESSIONS,
        }
    finally:
        await http.aclose()
        ledger.close()


async def many(backend: AkashBackend, ledger_id: str, first: int) -> tuple[float, float]:
    """Launch many sessions at once; return the seconds that took, and those of the CPU."""
    started, cpu = trio.current_time(), time.process_time()
    async with trio.open_nursery() as nursery:
        for number in range(SESSIONS):
            nursery.start_soon(backend.launch, akash_world.spec(ledger_id, first + number))
    return trio.current_time() - started, time.process_time() - cpu


async def reconciliation(endpoints: tuple[str, ...]) -> dict[str, float]:
    """Return how long it takes to compare all deployments with the ledger, and how late the loop is meanwhile."""
    ledger, http = open_inline(), HttpClient()
    try:
        parts = akash_world.parts(ledger, http, akash_world.without_waits(endpoints))
        await _deploy(parts)
        lags: list[float] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch_lag, lags)
            started = trio.current_time()
            await Reconciler(parts).run()
            elapsed = trio.current_time() - started
            nursery.cancel_scope.cancel()
        return {"reconcile_s": elapsed, "loop_lag_p99_ms": statistics.quantiles(lags, n=100)[98] * 1000}
    finally:
        await http.aclose()
        ledger.close()


async def _deploy(parts: AkashParts) -> None:
    """Create the deployments, many in a transaction; the ledger knows every second one."""
    spec = akash_world.spec(parts.ledger_id, 0)
    last = 0
    for _ in range(DEPLOYMENTS // A_TRANSACTION):
        wanted: list[Message] = []
        for _ in range(A_TRANSACTION):
            last = numbering.next_dseq(parts.ledger_id, parts.clock.now(), last)
            order = parts.order_of(Wish(spec=spec, dseq=last, wide=True, ceiling=30_000_000))
            created = messages.DeploymentID(parts.chain.owner, last)
            deposit = messages.Deposit(Coin("uact", "500000"))
            wanted.append(messages.CreateDeployment(created, order.groups, order.hash, deposit))
            if last >> numbering.TAG_BITS & 1:
                row = Deployment(
                    dseq=last,
                    token=f"{parts.ledger_id}-{last}",
                    session_id=f"s{last}",
                    state=DeploymentState.SERVING,
                    hash=order.hash,
                    manifest=order.manifest,
                    wide=True,
                    ceiling=30_000_000,
                    deposit_uact=500_000,
                    created_at=parts.clock.now(),
                    state_since=parts.clock.now(),
                    ends_at=parts.clock.now() + 3600.0,
                )
                await parts.ledger.write(partial(records.insert_deployment, row=row))
        made = await parts.sender.prepare(tuple(wanted), Subject.CREATE, None)
        assert isinstance(made, Outgoing), made
        await parts.sender.commit(made)
        assert (await parts.sender.follow(made)).state is TxState.INCLUDED


async def _watch_lag(lags: list[float]) -> None:
    while True:
        due = trio.current_time() + LAG_EVERY_S
        await trio.sleep_until(due)
        lags.append(trio.current_time() - due)


def main() -> None:
    ours, theirs = [], []
    for _ in range(REPEATS):
        ours.append(sign_tx_ms())
        theirs.append(cosmjs_sign_tx_ms())
    figures = {"sign_tx_ms": statistics.median(ours)}
    with akash_world.double("--block-s", str(BLOCK_S)) as double:
        figures |= trio.run(launches, double)
    with akash_world.double("--block-s", "0.2") as double:
        figures |= trio.run(reconciliation, double.endpoints)
    measured = [one for one in theirs if one is not None]
    cosmjs = statistics.median(measured) if measured else None
    print_line(
        "akash",
        figures,
        {"cosmjs": {"sign_tx_ms": cosmjs}},
        {"sign_tx_vs_cosmjs": None if cosmjs is None else figures["sign_tx_ms"] / cosmjs},
        WANTED,
    )


if __name__ == "__main__":
    main()
