"""The part of a gateway that works on Akash, on the ledger in a folder: to be killed. Run again, it goes on.

`python -m tests.provisioning.akash.killed_gateway <job> <folder> <endpoint> <endpoint>`
    session   brings session `s` as far as it goes
    extend    fills the escrow of its deployment for `EXTENDED_S` seconds
    replace   places the successor of its node, which its provider takes back
    restart   takes its node out of service, and launches it again
    orphan    closes what the ledger does not know
    mint      looks at the account until what it minted has arrived
"""

import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import msgspec
import trio
from sqlalchemy import Connection, select

from actors import Registry
from config.model import GatewaySettings, ProvisioningSettings, Settings
from engram.clock import SystemClock, SystemIds
from engram.hints import Hints
from engram.http.client import HttpClient
from engram.ledger import facts, open_inline
from engram.provisioning import node_keys, saga
from engram.provisioning.akash import records
from engram.provisioning.akash.backend import AkashBackend
from engram.provisioning.akash.escrow import Escrows
from engram.provisioning.akash.factory import make_parts
from engram.provisioning.akash.model import DeploymentState
from engram.provisioning.akash.ports import AkashParts
from engram.provisioning.akash.reconciling import Reconciler
from engram.provisioning.akash.served import served_spec
from engram.provisioning.akash.tables import mints
from engram.provisioning.akash.wallet_watch import WalletWatch
from engram.provisioning.backends import Backends
from engram.provisioning.errors import Unavailable
from engram.provisioning.fleet import Fleet
from engram.provisioning.health import health_probe
from engram.sessions import SystemInstants, rules
from engram.telemetry.metrics import Metrics
from tests.provisioning.akash.worlds import CHAIN_ID, IMAGE, KEY, QUICK

EXTENDED_S = 200 * 3600.0
MINT_AKT = 20.0


async def run(job: str, folder: Path, endpoints: tuple[str, ...]) -> None:
    ledger = open_inline(folder / "ledger.sqlite3")
    akash = msgspec.structs.replace(
        QUICK,
        endpoints=endpoints,
        chain_id=CHAIN_ID,
        bids_first_s=0.2,
        bids_enough_s=0.4,
        bids_give_up_s=3.0,
        mint_akt=MINT_AKT,
        alarm_act=MINT_AKT / 2,
    )
    settings = Settings(
        akash=akash,
        provisioning=ProvisioningSettings(miner_image=IMAGE, health_interval_s=0.02),
        gateway=GatewaySettings(public_url="http://gateway.example"),
    )
    http = HttpClient()
    ledger_id = ledger.write_now(facts.ledger_id)
    parts = make_parts(settings, KEY, ledger, ledger_id, http, SystemClock(), Metrics())
    parts = msgspec.structs.replace(parts, poll_s=0.02)
    match job:
        case "extend":
            await extend(parts)
        case "mint":
            await mint(parts)
        case "replace":
            await replace(parts)
        case "restart":
            await restart(parts)
        case "orphan":
            await looked(parts, Reconciler(msgspec.structs.replace(parts, orphan_age_s=0.0)).run)
        case _:
            await bring_forward(parts, settings, folder, http)


async def extend(parts: AkashParts) -> None:
    (row,) = await parts.ledger.read(records.all_live)
    await AkashBackend(parts).extend(row.token, row.state_since + EXTENDED_S)
    (row,) = await parts.ledger.read(records.all_live)
    await looked(parts, partial(Escrows(parts).fill, row))


async def replace(parts: AkashParts) -> None:
    """Do what the watch does, one thing after the other, until the successor has taken over and nothing is left."""
    backend = AkashBackend(parts)
    placing, replacing = backend._placing, backend._watching._replacing
    while live := await parts.ledger.read(records.all_live):
        closing = [row for row in live if row.state is DeploymentState.CLOSING]
        due = [row for row in live if row.reclaim_at is not None and row not in closing]
        if not closing and not due:
            return
        for row in due:
            await looked(parts, partial(replacing.replace, row))
        for row in closing:
            await placing.drive(row)


async def restart(parts: AkashParts) -> None:
    (row,) = await parts.ledger.read(records.all_live)
    spec = await parts.ledger.read(lambda c: served_spec(c, row, parts.tiers))
    assert spec is not None
    backend = AkashBackend(parts)
    if not row.restarts:
        await backend.stop(spec.token)
    await backend.launch(spec)


async def mint(parts: AkashParts) -> None:
    def all_executed(connection: Connection) -> bool:
        return set(connection.execute(select(mints.c.state)).scalars()) == {"executed"}

    watch = WalletWatch(parts)
    await looked(parts, watch.look)
    while not await parts.ledger.read(all_executed):
        await trio.sleep(parts.poll_s)
        await looked(parts, watch.look)


async def looked(parts: AkashParts, look: Callable[[], Awaitable[object]]) -> None:
    """Look until the endpoints answer alike, as the backend's watch does: one may be a block behind the other."""
    while True:
        try:
            await look()
            return
        except Unavailable:
            await trio.sleep(parts.poll_s)


async def bring_forward(parts: AkashParts, settings: Settings, folder: Path, http: HttpClient) -> None:
    backends = Backends([AkashBackend(parts)])
    await backends.look()
    fleet = Fleet(
        registry=Registry(),
        ledger=parts.ledger,
        backends=backends,
        instants=SystemInstants(),
        ids=SystemIds(),
        settings=settings.provisioning,
        tiers=rules.tiers(0.10),
        is_healthy=health_probe(http),
        settle_up=lambda connection, session_id: None,
        metrics=Metrics(),
        hints=Hints(),
        expiry_interval_s=5.0,
        keys_folder=folder / "hotkeys",
        new_key=partial(node_keys.generate, parts.ledger, folder / "hotkeys", 0.0),
    )
    await saga.run(fleet, "s")


if __name__ == "__main__":
    trio.run(run, sys.argv[1], Path(sys.argv[2]), tuple(sys.argv[3:]))
