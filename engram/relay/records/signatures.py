"""The one hash that is ever signed for a subnet, kind, block and source."""

from sqlalchemy import Connection, select

from engram.ledger.sql import upsert
from engram.relay.model import Entry
from engram.relay.tables import relay_signatures, relay_streams


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

    To be committed before the signature leaves this machine, for one's own payloads and for those that are co-signed.
    """
    intent = upsert(relay_signatures).values(
        netuid=netuid, kind=kind, block=block, source=source, signer=signer, output_hash=output_hash, at=now
    )
    connection.execute(intent.on_conflict_do_nothing())
    held = signed_hash_of(connection, netuid=netuid, kind=kind, block=block, source=source, signer=signer)
    return held == output_hash


def signed_hash_of(
    connection: Connection, *, netuid: int, kind: str, block: int, source: str, signer: str
) -> str | None:
    """Return the output_hash that was committed to; None when there is none."""
    found: str | None = connection.scalar(
        select(relay_signatures.c.output_hash).where(
            relay_signatures.c.netuid == netuid,
            relay_signatures.c.kind == kind,
            relay_signatures.c.block == block,
            relay_signatures.c.source == source,
            relay_signatures.c.signer == signer,
        )
    )
    return found


def may_sign_entry(connection: Connection, entry: Entry, now: float) -> bool:
    """Commit to an entry's hash as the one that is signed, or return False."""
    query = select(relay_streams.c.netuid, relay_streams.c.signer).where(relay_streams.c.id == entry.stream_id)
    netuid, signer = connection.execute(query).one()
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
