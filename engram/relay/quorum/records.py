"""Candidates, bundles and evidence in the ledger. Functions run inside `ledger.write` or `ledger.read`."""

from collections.abc import Callable, Collection, Sequence
from typing import Final

import msgspec
from sqlalchemy import Connection, RowMapping, delete, func, select, update

from engram import wire
from engram.ledger.sql import one_of, upsert
from engram.relay.model import Enqueued, ScoresPayload
from engram.relay.quorum.model import (
    Bundle,
    Candidate,
    CandidateState,
    CandidateSummary,
    Cosignature,
    Difference,
    Evidence,
    Judged,
    Proposal,
)
from engram.relay.records import enqueue, may_sign
from engram.relay.records.signatures import signed_output
from engram.relay.signer import Signed
from engram.relay.tables import relay_bundles, relay_candidates, relay_evidence

KIND: Final = "scores"
OPEN: Final = (CandidateState.WAITING, CandidateState.PROPOSED)
EVIDENCE_KEPT: Final = 10_000
"""The newest refusals that are kept."""
KEPT_S: Final = 90 * 86_400.0


def offer(
    connection: Connection, payload: ScoresPayload, epoch: int, block_hash: bytes, now: float, audit: str | None = None
) -> bool:
    """Keep scores of our own as what may be relayed of this epoch; False when there are some already.

    `audit` is what the operator should know of them, and stays their reason until they end for another.
    """
    offered = upsert(relay_candidates).values(
        netuid=payload.netuid,
        epoch=epoch,
        block=payload.block,
        block_hash=block_hash,
        nonce=payload.nonce,
        output_hash=payload.output_hash,
        payload=msgspec.json.encode(payload),
        cosignatures="[]",
        state=str(CandidateState.WAITING),
        reason=audit,
        created_at=now,
        updated_at=now,
    )
    return connection.execute(offered.on_conflict_do_nothing()).rowcount == 1


def open_candidates(connection: Connection, netuid: int) -> list[Candidate]:
    """Return what may still be relayed, the oldest epoch first."""
    query = select(relay_candidates).where(relay_candidates.c.netuid == netuid, one_of(relay_candidates.c.state, OPEN))
    return [_candidate(row) for row in connection.execute(query.order_by(relay_candidates.c.epoch)).mappings()]


def candidates(connection: Connection, limit: int) -> list[Candidate]:
    """Return the newest candidates, the newest first."""
    query = select(relay_candidates).order_by(relay_candidates.c.epoch.desc(), relay_candidates.c.netuid).limit(limit)
    return [_candidate(row) for row in connection.execute(query).mappings()]


def summaries(connection: Connection, limit: int) -> list[CandidateSummary]:
    """Return the newest candidates for the operator, the newest first."""
    return [
        CandidateSummary(
            epoch=found.epoch,
            block=found.block,
            state=str(found.state),
            output_hash=found.output_hash,
            signers=len(found.cosignatures) + (found.signed is not None),
            reason=found.reason,
            updated_at=found.updated_at,
        )
        for found in candidates(connection, limit)
    ]


def propose(
    connection: Connection, found: Candidate, hotkey: str, sign: Callable[[bytes], Signed], now: float
) -> Candidate:
    """Sign a candidate, once; it is withdrawn when another output of its block was signed before.

    The intent to sign is in this transaction, which is committed before the signature leaves this machine.
    """
    if found.signed is not None:
        return found
    if not commit_to(connection, found.netuid, found.block, hotkey, found.output_hash, now):
        return end(connection, found, CandidateState.WITHDRAWN, "another output of this block was signed before", now)
    signed = sign(found.payload)
    proposed = msgspec.structs.replace(
        found, signed=signed.body, signed_hash=signed.signed_hash, state=CandidateState.PROPOSED, updated_at=now
    )
    _write(connection, proposed)
    return proposed


def commit_to(connection: Connection, netuid: int, block: int, hotkey: str, output_hash: str, now: float) -> bool:
    """Commit to the only output of a block that this key ever signs; False when it has signed another one.

    For our own key before signing; for another's when its signature was seen.
    """
    return may_sign(
        connection,
        netuid=netuid,
        kind=KIND,
        block=block,
        source="",
        signer=hotkey,
        output_hash=output_hash,
        now=now,
    )


def committed(connection: Connection, netuid: int, block: int, hotkey: str) -> str | None:
    """Return the output_hash that a key has signed for a block, as far as is known here."""
    return signed_output(connection, netuid=netuid, kind=KIND, block=block, source="", signer=hotkey)


def add_cosignature(connection: Connection, found: Candidate, cosignature: Cosignature, now: float) -> Candidate:
    """Keep a signature that was collected; `found` is read anew, since several come in at once."""
    now_kept = _get(connection, found.netuid, found.epoch)
    if any(each.hotkey == cosignature.hotkey for each in now_kept.cosignatures):
        return now_kept
    joined = msgspec.structs.replace(now_kept, cosignatures=(*now_kept.cosignatures, cosignature), updated_at=now)
    _write(connection, joined)
    return joined


def bundle(connection: Connection, found: Candidate, hotkey: str, bound: int, now: float) -> Enqueued:
    """Queue a candidate with its signatures for the receiver, and note that the epoch has had its bundle."""
    assert found.signed is not None
    assert found.signed_hash is not None
    body = with_cosignatures(found.signed, found.cosignatures)
    queued = enqueue(
        connection,
        wire.decode(found.payload, ScoresPayload),
        now,
        bound=bound,
        block_hash=found.block_hash,
        signer=hotkey,
        signed=Signed(body, found.signed_hash),
    )
    if queued is Enqueued.REFUSED:
        return queued
    end(connection, found, CandidateState.BUNDLED, None, now)
    note_bundle(
        connection,
        Bundle(
            netuid=found.netuid,
            epoch=found.epoch,
            block=found.block,
            proposer=hotkey,
            output_hash=found.output_hash,
            signed_hash=found.signed_hash,
            signers=1 + len(found.cosignatures),
            at=now,
        ),
    )
    return queued


def with_cosignatures(signed: bytes, cosignatures: Sequence[Cosignature]) -> bytes:
    """Return a signed payload with the signatures of others; the field is there also when there are none."""
    document = wire.decode(signed, dict[str, msgspec.Raw])
    return msgspec.json.encode(document | {"cosignatures": list(cosignatures)})


def note_bundle(connection: Connection, left: Bundle) -> bool:
    """Note that an epoch has had its bundle, and let our own scores of it rest; False when one was noted before."""
    noted = connection.execute(upsert(relay_bundles).values(msgspec.structs.asdict(left)).on_conflict_do_nothing())
    for found in open_candidates(connection, left.netuid):
        if found.epoch == left.epoch:
            end(connection, found, CandidateState.SETTLED, f"the bundle of {left.proposer} has left", left.at)
    return noted.rowcount == 1


def bundle_of(connection: Connection, netuid: int, epoch: int) -> Bundle | None:
    """Return the bundle that has left for an epoch; None when none was heard of."""
    query = select(relay_bundles).where(relay_bundles.c.netuid == netuid, relay_bundles.c.epoch == epoch)
    row = connection.execute(query).mappings().first()
    return None if row is None else Bundle(**row)


def bundles(connection: Connection, limit: int) -> list[Bundle]:
    """Return the newest bundles, the newest first."""
    query = select(relay_bundles).order_by(relay_bundles.c.at.desc()).limit(limit)
    return [Bundle(**row) for row in connection.execute(query).mappings()]


def end(connection: Connection, found: Candidate, state: CandidateState, reason: str | None, now: float) -> Candidate:
    """Write how a candidate ended."""
    ended = msgspec.structs.replace(found, state=state, reason=reason or found.reason, updated_at=now)
    _write(connection, ended)
    return ended


def end_former(connection: Connection, netuid: int, epoch: int, now: float) -> list[Candidate]:
    """End candidates of epochs before this one, which came too late, and return them; purge what is old besides."""
    purge(connection, now)
    over = [found for found in open_candidates(connection, netuid) if found.epoch < epoch]
    return [
        end(connection, found, CandidateState.SHORT, f"{1 + len(found.cosignatures)} have signed", now)
        if found.state is CandidateState.PROPOSED
        else end(connection, found, CandidateState.MISSED, found.reason or "it was never proposed", now)
        for found in over
    ]


def keep_evidence(
    connection: Connection, proposal: Proposal, proposer: str, judge: str, judged: Judged, at: float
) -> bool:
    """Keep a refusal; False when the same one is kept already. At most EVIDENCE_KEPT are kept, the newest."""
    kept = connection.execute(
        upsert(relay_evidence)
        .values(
            at=at,
            netuid=proposal.netuid,
            block=proposal.block,
            proposer=proposer,
            judge=judge,
            verdict=str(judged.verdict),
            reason=judged.reason,
            differences=msgspec.json.encode(judged.differences).decode(),
            output_hash=proposal.output_hash,
            document=proposal.document,
        )
        .on_conflict_do_nothing()
    )
    newest = connection.scalar(select(func.max(relay_evidence.c.id))) or 0
    connection.execute(delete(relay_evidence).where(relay_evidence.c.id <= newest - EVIDENCE_KEPT))
    return kept.rowcount == 1


def evidence(connection: Connection, limit: int = 100, proposer: str | None = None) -> list[Evidence]:
    """Return the newest refusals, the newest first; with `proposer` (ss58) those of one validator's proposals."""
    query = select(relay_evidence).order_by(relay_evidence.c.id.desc()).limit(limit)
    if proposer is not None:
        query = query.where(relay_evidence.c.proposer == proposer)
    return [_evidence(row) for row in connection.execute(query).mappings()]


def purge(connection: Connection, now: float) -> None:
    """Forget candidates and bundles of 90 days ago."""
    over = relay_candidates.c.updated_at < now - KEPT_S
    connection.execute(delete(relay_candidates).where(over, relay_candidates.c.state.not_in([str(s) for s in OPEN])))
    connection.execute(delete(relay_bundles).where(relay_bundles.c.at < now - KEPT_S))


def signers_of(found: Candidate) -> Collection[str]:
    """Return the ss58 addresses of those that have co-signed."""
    return {each.hotkey for each in found.cosignatures}


def _get(connection: Connection, netuid: int, epoch: int) -> Candidate:
    query = select(relay_candidates).where(relay_candidates.c.netuid == netuid, relay_candidates.c.epoch == epoch)
    return _candidate(connection.execute(query).mappings().one())


def _write(connection: Connection, found: Candidate) -> None:
    connection.execute(
        update(relay_candidates)
        .where(relay_candidates.c.netuid == found.netuid, relay_candidates.c.epoch == found.epoch)
        .values(
            signed=found.signed,
            signed_hash=found.signed_hash,
            cosignatures=msgspec.json.encode(found.cosignatures).decode(),
            state=str(found.state),
            reason=found.reason,
            updated_at=found.updated_at,
        )
    )


def _candidate(row: RowMapping) -> Candidate:
    fields = dict(row)
    fields["cosignatures"] = tuple(wire.decode(row["cosignatures"], list[Cosignature]))
    fields["state"] = CandidateState(row["state"])
    return Candidate(**fields)


def _evidence(row: RowMapping) -> Evidence:
    fields = dict(row)
    fields["differences"] = tuple(wire.decode(row["differences"], list[Difference]))
    fields["document"] = msgspec.Raw(row["document"])
    return Evidence(**fields)
