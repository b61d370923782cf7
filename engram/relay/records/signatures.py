"""The one hash that is ever signed for a subnet, kind and block, and source where a block has several."""

from typing import Final

from sqlalchemy import Connection, delete, func, select

from engram.relay.model import Entry
from engram.relay.records import statements
from engram.relay.rules import signed_source
from engram.relay.tables import relay_signatures

KEPT_S: Final = 30 * 86_400.0
BLOCKS_KEPT: Final = 216_000
"""Blocks below the newest one that a key has signed for; 30 days."""


def may_sign(
    connection: Connection,
    *,
    netuid: int,
    kind: str,
    block: int,
    source: str,
    signer: str,
    output_hash: str,
    now: float,
) -> bool:
    """Commit to the only hash that is ever signed for a block, kind and source; False when another one was.

    The source counts for the kinds of gateways alone: see `signed_source`.

    To be committed before the signature leaves this machine, for one's own payloads and for those that are co-signed.
    """
    key = _key(netuid, kind, block, source, signer)
    statements.INTENT.apply(connection, key | {"output_hash": output_hash, "at": now})
    return statements.HELD.values(connection, key) == (output_hash,)


def signed_output(
    connection: Connection, *, netuid: int, kind: str, block: int, source: str, signer: str
) -> str | None:
    """Return the output_hash that was committed to; None when there is none."""
    key = _key(netuid, kind, block, source, signer)
    held = statements.HELD.values(connection, key)
    return None if held is None else str(held[0])


def _key(netuid: int, kind: str, block: int, source: str, signer: str) -> dict[str, object]:
    return {
        "netuid": netuid,
        "kind": kind,
        "block": block,
        "source": signed_source(kind, source),
        "signer": signer,
    }


def signer_of(connection: Connection, entry: Entry) -> str:
    """Return the address of the key that signs an entry."""
    found = statements.STREAM_KEY.values(connection, {"stream": entry.stream_id})
    assert found is not None, "an entry is written together with its stream"
    return str(found[1])


def may_sign_entry(connection: Connection, entry: Entry, now: float) -> bool:
    """Commit to an entry's hash as the one that is signed, or return False."""
    found = statements.STREAM_KEY.values(connection, {"stream": entry.stream_id})
    assert found is not None, "an entry is written together with its stream"
    netuid, signer = found
    _, _, rest = entry.nonce.partition(":")
    return may_sign(
        connection,
        netuid=netuid,
        kind=entry.kind,
        block=entry.block,
        source=rest.rpartition(":")[0],
        signer=signer,
        output_hash=entry.output_hash,
        now=now,
    )


def forget_signatures(connection: Connection, now: float) -> int:
    """Forget what was signed more than KEPT_S ago and BLOCKS_KEPT blocks below the newest of its subnet, kind and key.

    Neither is enough: a clock that runs ahead for a moment, or a proposal of a block far ahead, would make a second
    signature of one block possible, or hide one.
    """
    newest = relay_signatures.alias()
    same = (
        (newest.c.netuid == relay_signatures.c.netuid)
        & (newest.c.kind == relay_signatures.c.kind)
        & (newest.c.signer == relay_signatures.c.signer)
    )
    highest = select(func.max(newest.c.block)).where(same).scalar_subquery()
    is_old = (relay_signatures.c.at < now - KEPT_S) & (relay_signatures.c.block < highest - BLOCKS_KEPT)
    return connection.execute(delete(relay_signatures).where(is_old)).rowcount
