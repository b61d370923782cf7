"""Candidates, bundles and evidence in the ledger. Functions run inside `ledger.write` or `ledger.read`."""

from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol

import msgspec
from sqlalchemy import ColumnElement, Connection, RowMapping, delete, select, update

from engram import wire
from engram.ledger.sql import one_of, upsert
from engram.relay.model import Enqueued, RankingPayload, ScoresPayload
from engram.relay.quorum.model import (
    Bundle,
    Candidate,
    CandidateState,
    CandidateSummary,
    Cosignature,
    OwnRanking,
)
from engram.relay.records import enqueue, may_sign
from engram.relay.records.signatures import signed_output
from engram.relay.rules import kind_of
from engram.relay.signer import Signed
from engram.relay.tables import relay_bundles, relay_candidates

OPEN: Final = (CandidateState.WAITING, CandidateState.PROPOSED)
KEPT_S: Final = 90 * 86_400.0
WITHHELD: Final = 0
"""`signers` of a bundle that was said to have left, and that the receiver does not show: it settles nothing."""


class Output(Protocol):
    """What the one signature of a block is for: a proposal or a candidate."""

    @property
    def netuid(self) -> int:
        """The subnet."""
        ...

    @property
    def kind(self) -> str:
        """scores | ranking"""
        ...

    @property
    def block(self) -> int:
        """Its block."""
        ...

    @property
    def output_hash(self) -> str:
        """In hex."""
        ...


def offer(
    connection: Connection,
    payload: ScoresPayload | RankingPayload,
    epoch: int,
    block_hash: bytes,
    now: float,
    audit: str | None = None,
) -> bool:
    """Keep an output of our own as what may be relayed of this epoch, in the place of one that still waits; False when
    one of its kind was proposed, or has ended.

    `audit` is what the operator should know of them, and stays their reason until they end for another.
    """
    output = {
        "block": payload.block,
        "block_hash": block_hash,
        "nonce": payload.nonce,
        "output_hash": payload.output_hash,
        "payload": msgspec.json.encode(payload),
        "reason": audit,
        "updated_at": now,
    }
    offered = upsert(relay_candidates).values(
        netuid=payload.netuid,
        kind=kind_of(payload),
        epoch=epoch,
        cosignatures="[]",
        state=str(CandidateState.WAITING),
        created_at=now,
        **output,
    )
    waits = relay_candidates.c.state == str(CandidateState.WAITING)
    kept = offered.on_conflict_do_update(index_elements=["netuid", "kind", "epoch"], set_=output, where=waits)
    return connection.execute(kept).rowcount == 1


def open_candidates(connection: Connection, netuid: int) -> list[Candidate]:
    """Return what may still be relayed, the oldest epoch first."""
    query = select(relay_candidates).where(relay_candidates.c.netuid == netuid, one_of(relay_candidates.c.state, OPEN))
    query = query.order_by(relay_candidates.c.epoch, relay_candidates.c.kind.desc())
    return [_candidate(row) for row in connection.execute(query).mappings()]


def own_rankings(connection: Connection, netuid: int, epoch: int, epochs: int) -> list[OwnRanking]:
    """Return the rankings by weights that were set here at most so many epochs away, whatever became of them."""
    at = relay_candidates.c.epoch
    query = select(at, relay_candidates.c.payload).where(
        relay_candidates.c.netuid == netuid,
        relay_candidates.c.kind == "ranking",
        at >= epoch - epochs,
        at <= epoch + epochs,
    )
    rows = connection.execute(query.order_by(at)).all()
    return [OwnRanking(number, wire.decode(payload, RankingPayload).ranking) for number, payload in rows]


def candidates(connection: Connection, limit: int) -> list[Candidate]:
    """Return the newest candidates, the newest first."""
    order = (relay_candidates.c.epoch.desc(), relay_candidates.c.netuid, relay_candidates.c.kind.desc())
    query = select(relay_candidates).order_by(*order).limit(limit)
    return [_candidate(row) for row in connection.execute(query).mappings()]


def summaries(connection: Connection, limit: int) -> list[CandidateSummary]:
    """Return the newest candidates for the operator, the newest first."""
    return [
        CandidateSummary(
            kind=found.kind,
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
    if not commit_to(connection, found, hotkey, now):
        return end(connection, found, CandidateState.WITHDRAWN, "another output of this block was signed before", now)
    signed = sign(found.payload)
    proposed = msgspec.structs.replace(
        found, signed=signed.body, signed_hash=signed.signed_hash, state=CandidateState.PROPOSED, updated_at=now
    )
    _write(connection, proposed)
    return proposed


def commit_to(connection: Connection, output: Output, hotkey: str, now: float) -> bool:
    """Commit to the only output of its kind and block that this key ever signs; False when it has signed another one.

    For our own key before signing; for another's when its signature was seen.
    """
    return may_sign(
        connection,
        netuid=output.netuid,
        kind=output.kind,
        block=output.block,
        source="",
        signer=hotkey,
        output_hash=output.output_hash,
        now=now,
    )


def committed(connection: Connection, output: Output, hotkey: str) -> str | None:
    """Return the output_hash that a key has signed for this kind and block, as far as is known here."""
    return signed_output(
        connection, netuid=output.netuid, kind=output.kind, block=output.block, source="", signer=hotkey
    )


def add_cosignature(connection: Connection, found: Candidate, cosignature: Cosignature, now: float) -> Candidate:
    """Keep a signature that was collected; `found` is read anew, since several come in at once."""
    now_kept = candidate(connection, found)
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
    payload: ScoresPayload | RankingPayload
    if found.kind == "ranking":
        payload = wire.decode(found.payload, RankingPayload)
    else:
        payload = wire.decode(found.payload, ScoresPayload)
    queued = enqueue(
        connection,
        payload,
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
            kind=found.kind,
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
    """Note that an epoch has had its bundle of a kind, and let our own of it rest; False when one was noted before.

    Of a proposer whose bundle of this epoch was withheld no other one counts.
    """
    before = bundle_of(connection, left.netuid, left.kind, left.epoch)
    if before is not None and before.signers == WITHHELD:
        if before.proposer == left.proposer:
            return False
        connection.execute(delete(relay_bundles).where(_is_bundle(before)))
    noted = connection.execute(upsert(relay_bundles).values(msgspec.structs.asdict(left)).on_conflict_do_nothing())
    for found in open_candidates(connection, left.netuid):
        if (found.kind, found.epoch) == (left.kind, left.epoch):
            end(connection, found, CandidateState.SETTLED, f"the bundle of {left.proposer} has left", left.at)
    return noted.rowcount == 1


def not_shown(connection: Connection, netuid: int, own: str, epoch: int, before: float) -> list[Bundle]:
    """Return the bundles of others, of this epoch and later ones, that were noted before then (unix seconds)."""
    old = (relay_bundles.c.at <= before) & (relay_bundles.c.signers != WITHHELD)
    query = select(relay_bundles).where(relay_bundles.c.netuid == netuid, relay_bundles.c.epoch >= epoch, old)
    rows = connection.execute(query.where(relay_bundles.c.proposer != own)).mappings()
    return [Bundle(**row) for row in rows]


def reopen(connection: Connection, left: Bundle, now: float) -> None:
    """Let a bundle that the receiver never got settle nothing, and our own of its epoch be proposed again."""
    connection.execute(update(relay_bundles).where(_is_bundle(left)).values(signers=WITHHELD))
    query = select(relay_candidates).where(
        relay_candidates.c.netuid == left.netuid,
        relay_candidates.c.kind == left.kind,
        relay_candidates.c.epoch == left.epoch,
        relay_candidates.c.state == str(CandidateState.SETTLED),
    )
    for row in connection.execute(query).mappings():
        found = _candidate(row)
        state = CandidateState.WAITING if found.signed is None else CandidateState.PROPOSED
        end(connection, found, state, f"the bundle of {left.proposer} was not accepted in time", now)


def _is_bundle(left: Bundle) -> ColumnElement[bool]:
    of_kind = (relay_bundles.c.netuid == left.netuid) & (relay_bundles.c.kind == left.kind)
    return of_kind & (relay_bundles.c.epoch == left.epoch)


def bundle_of(connection: Connection, netuid: int, kind: str, epoch: int) -> Bundle | None:
    """Return the bundle of a kind that has left for an epoch; None when none was heard of."""
    of_epoch = (relay_bundles.c.kind == kind) & (relay_bundles.c.epoch == epoch)
    query = select(relay_bundles).where(relay_bundles.c.netuid == netuid, of_epoch)
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


def end_former(
    connection: Connection, netuid: int, epoch: int, now: float, unproposed: str = "it was never proposed"
) -> list[Candidate]:
    """End candidates of epochs before this one, which came too late, and return them; purge what is old besides.

    `unproposed` says why one that nobody was asked about was not proposed.
    """
    purge(connection, now)
    over = [found for found in open_candidates(connection, netuid) if found.epoch < epoch]
    return [
        end(connection, found, CandidateState.SHORT, f"{1 + len(found.cosignatures)} have signed", now)
        if found.state is CandidateState.PROPOSED
        else end(connection, found, CandidateState.MISSED, found.reason or unproposed, now)
        for found in over
    ]


def purge(connection: Connection, now: float) -> None:
    """Forget candidates and bundles of 90 days ago."""
    over = relay_candidates.c.updated_at < now - KEPT_S
    connection.execute(delete(relay_candidates).where(over, relay_candidates.c.state.not_in([str(s) for s in OPEN])))
    connection.execute(delete(relay_bundles).where(relay_bundles.c.at < now - KEPT_S))


def candidate(connection: Connection, found: Candidate) -> Candidate:
    """Return a candidate as it stands by now."""
    return _candidate(connection.execute(select(relay_candidates).where(_is(found))).mappings().one())


def signers_of(found: Candidate) -> Collection[str]:
    """Return the ss58 addresses of those that have co-signed."""
    return {each.hotkey for each in found.cosignatures}


def _is(found: Candidate) -> ColumnElement[bool]:
    of_kind = (relay_candidates.c.netuid == found.netuid) & (relay_candidates.c.kind == found.kind)
    return of_kind & (relay_candidates.c.epoch == found.epoch)


def _write(connection: Connection, found: Candidate) -> None:
    connection.execute(
        update(relay_candidates)
        .where(_is(found))
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
