"""ACT minted ahead: AKT is burned now, and ACT comes at the end of an epoch, or not at all.

    sent -> pending -> executed
         -> refused    -> canceled (the AKT came back)

That the transaction was taken proves nothing: its own record on the chain is followed. There is one mint at a time,
of all gateways that share the ledger.
"""

from collections.abc import Mapping
from typing import Final, final

import structlog
from sqlalchemy import Connection, insert, select, update

from engram.provisioning.akash import transactions
from engram.provisioning.akash.cosmos import Coin
from engram.provisioning.akash.errors import MalformedMessage
from engram.provisioning.akash.messages import LedgerRecordID, MintACT, mint_responses
from engram.provisioning.akash.ports import AkashParts
from engram.provisioning.akash.signing import Rejected
from engram.provisioning.akash.tables import mints
from engram.provisioning.akash.transactions import Subject, TxState

UAKT: Final = 1_000_000
AGAIN_S: Final = 3_600.0
"""After a mint that came to nothing the next one waits this long."""
_OPEN: Final = ("sent", "pending")

_log = structlog.get_logger("engram.provisioning.akash")


@final
class Minting:
    """Mints when there is too little, and follows each mint to its end."""

    def __init__(self, parts: AkashParts) -> None:
        self._parts = parts

    async def look(self, *, too_little: bool) -> None:
        """Follow the open mint, or begin one where there is too little ACT. Raises Unavailable."""
        found = await self._parts.ledger.read(_latest)
        if found is not None and found[1] in _OPEN:
            await self._follow(found[0], found[2])
            return
        waited = found is None or found[1] == "executed" or self._parts.clock.now() - found[3] > AGAIN_S
        if too_little and self._parts.mint_akt > 0 and waited:
            await self._begin(int(self._parts.mint_akt * UAKT), None if found is None else found[0])

    async def _begin(self, burn_uakt: int, latest: bytes | None) -> None:
        """Mint, unless another gateway has begun to since `latest` was the newest."""
        parts = self._parts
        owner = parts.chain.owner
        least, about = await parts.chain.min_mint_uact(), int(burn_uakt * parts.akt_usd)
        if about < least:  # by the setting, which may be wrong: the chain refunds what is too little
            _log.warning("akash_mint_is_little", burn_uakt=burn_uakt, about_uact=about, least_uact=least)
        async with parts.sender.turn():
            made = await parts.sender.prepare(
                (MintACT(owner, owner, Coin("uakt", str(burn_uakt))),), Subject.MINT, None
            )
            if isinstance(made, Rejected):
                _log.error("akash_mint_refused", burn_uakt=burn_uakt, reason=made.text[:300])
                return
            values = {
                "hash": made.hash,
                "burn_uakt": burn_uakt,
                "record": None,
                "state": "sent",
                "created_at": made.created_at,
            }
            if await parts.sender.commit(made, lambda c: _begin(c, latest, values)):
                await self._follow(made.hash, None)

    async def _follow(self, tx_hash: bytes, record: str | None) -> None:
        if record is None:
            record = await self._record_of(tx_hash)
        if record is None:
            return
        for status in ("executed", "canceled"):
            for row in await self._parts.chain.mint_records(status):
                if f"{row.id.height}/{row.id.sequence}" == record:
                    await self._settle(tx_hash, status)
                    log = _log.info if status == "executed" else _log.error
                    log("akash_mint", record=record, status=status)
                    return

    async def _record_of(self, tx_hash: bytes) -> str | None:
        """Follow the transaction and return its record; None when there is none, or none yet. Raises Unavailable."""
        parts = self._parts
        sent = await parts.ledger.read(lambda c: transactions.get(c, tx_hash))
        if sent is not None and sent.state is TxState.OPEN:
            sent = await parts.sender.follow(sent)
        if sent is None or sent.state is not TxState.INCLUDED:
            _log.error("akash_mint_refused", reason=("" if sent is None else sent.log or sent.state)[:300])
            await self._settle(tx_hash, "refused")
            return None
        answered = await parts.chain.answers_of(sent.name)
        if answered is None:  # included, as `follow` has seen: these endpoints have not indexed it yet
            return None
        try:
            answers = mint_responses(answered)
        except MalformedMessage:
            answers = ()
        if not answers:
            _log.error("akash_mint_without_record", transaction=tx_hash.hex())
            await self._settle(tx_hash, "refused")
            return None
        record = _name(answers[0].id)
        await parts.ledger.write(
            lambda c: (
                c.execute(update(mints).where(mints.c.hash == tx_hash).values(record=record, state="pending")).rowcount
            )
        )
        return record

    async def _settle(self, tx_hash: bytes, state: str) -> None:
        now = self._parts.clock.now()
        await self._parts.ledger.write(
            lambda c: (
                c.execute(update(mints).where(mints.c.hash == tx_hash).values(state=state, settled_at=now)).rowcount
            )
        )


def _name(record: LedgerRecordID) -> str:
    return f"{record.height}/{record.sequence}"


def _begin(connection: Connection, latest: bytes | None, values: Mapping[str, object]) -> bool:
    found = _latest(connection)
    if found is not None and (found[0] != latest or found[1] in _OPEN):
        return False
    connection.execute(insert(mints).values(values))
    return True


def _latest(connection: Connection) -> tuple[bytes, str, str | None, float] | None:
    """Return the open mint, or the newest: the clocks of gateways differ."""
    query = select(mints.c.hash, mints.c.state, mints.c.record, mints.c.created_at)
    row = connection.execute(query.order_by(mints.c.state.not_in(_OPEN), mints.c.created_at.desc()).limit(1)).first()
    return None if row is None else (row[0], row[1], row[2], row[3])
