"""Transactions of deployments, and what their outcomes mean once the chain was asked how things stand."""

from collections.abc import Callable
from typing import assert_never, final

import msgspec
import structlog
from sqlalchemy import Connection

from engram.provisioning.akash import events, sending_rules, transactions
from engram.provisioning.akash.cosmos import Coin, Duration
from engram.provisioning.akash.events import Event, Refusal
from engram.provisioning.akash.messages import (
    BidID,
    CloseDeployment,
    CreateDeployment,
    CreateLease,
    DeploymentID,
    Deposit,
    Message,
    Reclamation,
)
from engram.provisioning.akash.model import Deployment
from engram.provisioning.akash.ports import AkashParts
from engram.provisioning.akash.resources import GroupSpec
from engram.provisioning.akash.signing import Rejected as Simulated
from engram.provisioning.akash.transactions import Outgoing, Subject, TxState
from engram.provisioning.errors import Unavailable

_log = structlog.get_logger("engram.provisioning.akash")


class Done(msgspec.Struct, frozen=True):
    """What a transaction came to."""

    event: Event
    committed: bool
    """False: it was refused before it was signed, and the ledger knows nothing of it."""


@final
class Transacting:
    """Makes the messages of a deployment, sends them and reads their outcomes."""

    def __init__(self, parts: AkashParts) -> None:
        self._parts = parts

    async def transact(
        self, row: Deployment, subject: Subject, wanted: tuple[Message, ...], also: Callable[[Connection], bool]
    ) -> Done | None:
        """Sign, commit together with `also`, send and follow; None when `also` found the world changed, or when what
        became of it could not be read: the row tells.

        Raises Unavailable: nothing was committed to.
        """
        sender = self._parts.sender
        async with sender.turn():
            made = await sender.prepare(wanted, subject, row.dseq)
            if isinstance(made, Simulated):
                refusal = sending_rules.refusal_of("", 0, made.text)
                return Done(await self._refused(row, subject, refusal, made.text, sent=False), committed=False)
            if not await sender.commit(made, also):
                return None
            try:
                return Done(await self.event_of(row, await sender.follow(made)), committed=True)
            except Unavailable as error:
                _log.warning("akash_outcome_not_read", dseq=row.dseq, subject=subject, reason=str(error))
                return None

    async def event_of(self, row: Deployment, settled: Outgoing) -> Event:
        match settled.state:
            case TxState.INCLUDED if settled.subject is Subject.CLOSE:
                # One endpoint said so; what is not closed would be paid for, and be watched by nobody.
                return events.Included() if await self._is_gone(row, settled.height) else events.NotIncluded()
            case TxState.INCLUDED:
                return events.Included()
            case TxState.EXPIRED | TxState.OPEN:
                return events.NotIncluded(settled.log or "")
            case TxState.REFUSED:
                code, codespace, log = settled.code or 0, settled.codespace or "", settled.log or ""
                if (codespace, code) == sending_rules.OUT_OF_GAS:
                    return events.NotIncluded()
                refusal = sending_rules.refusal_of(codespace, code, log)
                return await self._refused(row, settled.subject, refusal, log, sent=True)
            case _:
                assert_never(settled.state)

    async def _refused(self, row: Deployment, subject: Subject, refusal: Refusal, text: str, *, sent: bool) -> Event:
        """Return what a refusal means once the chain was asked how things stand.

        That what was sent was refused is one endpoint's word: a deployment that is there all the same counts.
        """
        chain = self._parts.chain
        match subject:
            case Subject.CREATE if sent or sending_rules.exists(text):
                info = await chain.deployment(row.dseq)
                if info is not None and info.hash == row.hash:
                    return events.Exists()
            case Subject.LEASE:
                if any(lease.is_of(row) and lease.is_serving for lease in await chain.leases_agreed(row.dseq)):
                    return events.Exists()
            case Subject.CLOSE if refusal is Refusal.GONE:
                if not await self._is_gone(row, None):
                    return events.NotIncluded()
            case _:
                pass
        _log.warning("akash_refused", dseq=row.dseq, subject=subject, reason=text[:300])
        return events.Refused(refusal, text)

    async def _is_gone(self, row: Deployment, at_height: int | None) -> bool:
        """Whether the chain has no active deployment of this number, as of this block or that of its create."""
        if at_height is None:
            created = await self._parts.ledger.read(lambda c: transactions.latest(c, row.dseq, Subject.CREATE))
            at_height = (created.height or 0) if created is not None else 0
        info = await self._parts.chain.deployment_agreed(row.dseq, at_height)
        return info is None or not info.is_active

    # Messages.

    async def create(self, row: Deployment, groups: tuple[GroupSpec, ...]) -> CreateDeployment:
        """Return the message that creates the deployment. Raises Unavailable."""
        notice = None
        if not row.wide:
            notice = Reclamation(Duration(await self._parts.chain.notice_s(self._parts.min_reclaim_s)))
        deposit = Deposit(Coin("uact", str(row.deposit_uact)))
        return CreateDeployment(self._id(row), groups, row.hash, deposit, notice)

    def lease(self, row: Deployment) -> CreateLease:
        """Return the message that takes the chosen bid."""
        owner = self._parts.chain.owner
        return CreateLease(BidID(owner, row.dseq, row.gseq, row.oseq, row.provider or "", row.bseq))

    def close(self, row: Deployment) -> CloseDeployment:
        """Return the message that closes the deployment."""
        return CloseDeployment(self._id(row))

    def _id(self, row: Deployment) -> DeploymentID:
        return DeploymentID(self._parts.chain.owner, row.dseq)
