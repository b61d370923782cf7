"""Streams without a signer, as earlier versions kept those of a gateway: they become those of its key."""

from sqlalchemy import Connection, delete, literal_column, select, update

from engram.ledger.sql import upsert
from engram.relay.records.streams import change
from engram.relay.tables import relay_outbox, relay_signatures, relay_streams


def adopt(connection: Connection, signer: str) -> int:
    """Give streams and signatures without a signer to this one (ss58); return how many streams there were.

    What the signer has streams of already is put behind them.
    """
    former = connection.execute(select(relay_streams).where(relay_streams.c.signer == "")).mappings().all()
    for row in former:
        same = (relay_streams.c.netuid == row["netuid"]) & (relay_streams.c.kind == row["kind"])
        query = select(relay_streams).where(same, relay_streams.c.signer == signer)
        own = connection.execute(query).mappings().first()
        if own is None:
            change(connection, row["id"], signer=signer)
            continue
        entries = relay_outbox.c.stream_id == row["id"]
        twice = select(relay_outbox.c.nonce).where(relay_outbox.c.stream_id == own["id"])
        renamed = relay_outbox.c.nonce + literal_column("':former'")  # the payload keeps its own
        connection.execute(update(relay_outbox).where(entries, relay_outbox.c.nonce.in_(twice)).values(nonce=renamed))
        moved = {"stream_id": own["id"], "seq": relay_outbox.c.seq + own["next_seq"]}
        connection.execute(update(relay_outbox).where(entries).values(moved))
        change(
            connection,
            own["id"],
            next_seq=own["next_seq"] + row["next_seq"],
            pending=own["pending"] + row["pending"],
            parked=own["parked"] + row["parked"],
            next_attempt_at=min(own["next_attempt_at"], row["next_attempt_at"]),
        )
        connection.execute(delete(relay_streams).where(relay_streams.c.id == row["id"]))
    signed = connection.execute(select(relay_signatures).where(relay_signatures.c.signer == "")).mappings().all()
    for each in signed:
        connection.execute(upsert(relay_signatures).values({**each, "signer": signer}).on_conflict_do_nothing())
    connection.execute(delete(relay_signatures).where(relay_signatures.c.signer == ""))
    return len(former)
