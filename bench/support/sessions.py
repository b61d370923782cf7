"""A ledger with many running sessions."""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from sqlalchemy import Connection, insert

from engram.ledger import open_inline
from engram.provisioning import NodeSpec
from engram.provisioning.tables import node_keys, nodes
from engram.sessions import SystemInstants, TierName, counts, paid_clock, rules
from engram.sessions.tables import sessions

LITE = rules.tiers(0.10)[TierName.LITE]


class Live(msgspec.Struct, frozen=True):
    """One running session and its node."""

    session_id: str
    token: str
    endpoint: str
    port: int

    def spec(self) -> NodeSpec:
        return NodeSpec(
            token=self.token,
            session_id=self.session_id,
            tier=LITE,
            controller=b"\1" * 32,
            hotkey=b"\2" * 32,
            hotkey_file="key",
            port=self.port,
            ends_at=4e9,
        )


def fill(folder: Path, count: int, endpoint_of: Callable[[int], str]) -> list[Live]:
    """Write `count` running sessions, 720 h each, into a new ledger in `folder`."""
    from engram.ledger import facts

    ledger = open_inline(folder / "ledger.sqlite3")
    now = SystemInstants().now()

    def write(connection: Connection) -> list[Live]:
        ledger_id = facts.ledger_id(connection)
        live = [
            Live(f"session-{n:05}-{'0' * 22}", f"{ledger_id}-{n:024}", endpoint_of(n), 20_000 + n) for n in range(count)
        ]
        if not live:
            return live
        counted_from = paid_clock.checkpoint(connection, now)
        keys = [n.to_bytes(32, "big") for n in range(1, count + 1)]
        connection.execute(
            insert(sessions),
            [
                {
                    "id": one.session_id,
                    "controller": b"\1" * 32,
                    "state": "active",
                    "tier": "lite",
                    "paid_s": 720 * 3600.0,
                    "amount_usd_micros": 72_000_000,
                    "network": "eip155:31337",
                    "payment_id": f"payment-{one.session_id}",
                    "created_at": time.time(),
                    "active_at": time.time(),
                    "counted_from": counted_from,
                    "node_token": one.token,
                    "node_endpoint": one.endpoint,
                    "node_hotkey": key,
                    "launch_attempts": 1,
                }
                for one, key in zip(live, keys, strict=True)
            ],
        )
        connection.execute(
            insert(nodes),
            [
                {
                    "token": one.token,
                    "session_id": one.session_id,
                    "backend": "double",
                    "state": "running",
                    "port": one.port,
                    "reference": "{}",
                    "hotkey": key,
                    "created_at": time.time(),
                }
                for one, key in zip(live, keys, strict=True)
            ],
        )
        connection.execute(
            insert(node_keys),
            [
                {
                    "public_key": key,
                    "path": "key",
                    "source": "generated",
                    "added_at": 0.0,
                    "session_id": one.session_id,
                    "leased_at": 0.0,
                }
                for one, key in zip(live, keys, strict=True)
            ],
        )
        counts.recount(connection)
        return live

    live = ledger.write_now(write)
    ledger.close()
    return live
