"""The saga of one deployment: what to do next, given what is known. No I/O, no clock, no randomness.

A deployment is one row. A transaction is committed to (hash, bytes, timeout) together with the state that waits for
it, before it is sent; so a gateway that was killed anywhere goes on from the row. Each step observes or does one thing
and brings one event.

| state      | step          | what it may bring                          | next                                       |
|------------|---------------|--------------------------------------------|--------------------------------------------|
| creating   | FOLLOW        | Included, Exists (ours: the hash is equal) | bidding                                    |
|            |               | NotIncluded: certain                       | creating, signed again, `CREATES` times    |
|            |               | Refused (no funds, our mistake)            | closed: nothing was ever on chain          |
| bidding    | COLLECT_BIDS  | Bids: enough, or late with at least one    | leasing, for the best of them              |
|            |               | Bids: none acceptable for `bids_give_up_s` | closing: no_bids                           |
| leasing    | FOLLOW        | Included, Exists (a lease is active)       | delivering                                 |
|            |               | NotIncluded: certain                       | leasing, signed again, `LEASES` times      |
|            |               | Refused (bid or order gone)                | bidding, without that provider             |
|            |               | Refused (for another reason)               | closing: not_leased                        |
| delivering | SEND_MANIFEST | Accepted                                   | starting                                   |
|            |               | NoLeaseYet, ProviderFailed                 | delivering; after `manifest_s` closing     |
|            |               | ManifestRejected                           | closing: rejected                          |
| starting   | AWAIT_READY   | Ready                                      | serving                                    |
|            |               | NotReady, ProviderFailed                   | starting; after `ready_s` closing          |
| serving    | none          | Resend (restart wanted once)               | delivering: the same manifest again        |
| closing    | FOLLOW        | Included, Refused (closed, not found)      | closed                                     |
|            |               | NotIncluded                                | closing, signed again, without end         |
| closed     | none          |                                            |                                            |

At any time before closed: ChainClosed (an empty escrow, or a close by hand) -> closed; LeaseEnded (the provider left)
and Close (session over, restart wanted twice) -> closing. While a create is unsettled Close waits for its end: closing
what is not there yet would leave it behind. The compensation of every failure is one MsgCloseDeployment, which returns
the rest of the deposit.

Who owns what: the chain owns deployment, order, bid, lease and escrow; the provider owns manifest and workload; the
row owns the decision (dseq, hash, chosen bid, why it ends). Manifests are sent again, leases are not: a second lease
for one deployment is never asked for while one may be active.
"""

from enum import StrEnum
from typing import assert_never

import msgspec

from engram.provisioning.akash import bidding
from engram.provisioning.akash.events import (
    Accepted,
    Bids,
    ChainClosed,
    Close,
    Event,
    Exists,
    Included,
    LeaseEnded,
    ManifestRejected,
    NoLeaseYet,
    NotIncluded,
    NotReady,
    ProviderFailed,
    Ready,
    Refusal,
    Refused,
    Resend,
)
from engram.provisioning.akash.model import Deployment, DeploymentState

CREATES = 3
"""Create transactions that are signed for one deployment: each is certain not to be on chain before the next."""
LEASES = 3
"""Lease transactions signed for one bid, each as certain not to be on chain: that is not the provider's fault."""
NO_BIDS = "no_bids"
REJECTED = "manifest_rejected"
PROVIDER_FAILED = "provider_failed"
NEVER_READY = "never_ready"
NO_FUNDS = "no_funds"
LEASE_ENDED = "lease_ended"
CHAIN_CLOSED = "chain_closed"
NOT_CREATED = "not_created"
NOT_LEASED = "not_leased"
REFUSED = "refused"

PROVIDERS_FAULT = frozenset({PROVIDER_FAILED, NEVER_READY, LEASE_ENDED})
"""Reasons that the provider remembers as a failure."""


class Budgets(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that each part of a placement may take; what the reference's deployers use."""

    bids_first_s: float = 10.0
    """Bids are not chosen from earlier: the cheapest ones are not always the first."""
    bids_enough_s: float = 45.0
    """From here one bid is enough; before, `bids_wanted` are."""
    bids_give_up_s: float = 120.0
    bids_wanted: int = 3
    manifest_s: float = 60.0
    ready_s: float = 300.0


class Step(StrEnum):
    """What the worker is to do."""

    FOLLOW = "follow"
    """Follow the open transaction until the chain's word is final."""
    COLLECT_BIDS = "collect_bids"
    SEND_MANIFEST = "send_manifest"
    AWAIT_READY = "await_ready"


class Sign(StrEnum):
    """The transaction that is committed to with the new state."""

    CREATE = "create"
    LEASE = "lease"
    CLOSE = "close"


class Decision(msgspec.Struct, frozen=True):
    """The row to commit, and the transaction to commit with it; the same row: nothing changed."""

    row: Deployment
    sign: Sign | None = None


def step(row: Deployment) -> Step | None:
    """Return what is to be done in this state; None: nothing."""
    match row.state:
        case DeploymentState.CREATING | DeploymentState.LEASING | DeploymentState.CLOSING:
            return Step.FOLLOW
        case DeploymentState.BIDDING:
            return Step.COLLECT_BIDS
        case DeploymentState.DELIVERING:
            return Step.SEND_MANIFEST
        case DeploymentState.STARTING:
            return Step.AWAIT_READY
        case DeploymentState.SERVING | DeploymentState.CLOSED:
            return None
        case _:
            assert_never(row.state)


def decide(row: Deployment, event: Event, now: float, budgets: Budgets) -> Decision:
    """Return the deployment after `event`. An event that does not belong to the state changes nothing."""
    if row.state is DeploymentState.CLOSED:
        return Decision(row)
    if isinstance(event, ChainClosed):
        return _closed(row, now, CHAIN_CLOSED, event.text)
    if isinstance(event, Close):
        return _close_on_demand(row, event.reason, now)
    if isinstance(event, LeaseEnded):
        leased = row.state in (DeploymentState.DELIVERING, DeploymentState.STARTING, DeploymentState.SERVING)
        lost = msgspec.structs.replace(row, lost_at=now)
        return _closing(lost, now, LEASE_ENDED, event.text) if leased else Decision(row)
    match row.state:
        case DeploymentState.CREATING:
            return _creating(row, event, now)
        case DeploymentState.BIDDING:
            return _bidding(row, event, now, budgets)
        case DeploymentState.LEASING:
            return _leasing(row, event, now)
        case DeploymentState.DELIVERING:
            return _delivering(row, event, now, budgets)
        case DeploymentState.STARTING:
            return _starting(row, event, now, budgets)
        case DeploymentState.SERVING:
            # One commit: killed between two, it would be served and be out of service for ever.
            again = msgspec.structs.replace(row, stopped_at=None)
            return _to(again, DeploymentState.DELIVERING, now) if isinstance(event, Resend) else Decision(row)
        case DeploymentState.CLOSING:
            return _closing_goes_on(row, event, now)
        case _:
            assert_never(row.state)


def _creating(row: Deployment, event: Event, now: float) -> Decision:
    match event:
        case Included() | Exists():
            if row.reason is not None:  # it was to be closed while its create was under way
                return _closing(row, now, row.reason)
            return _to(row, DeploymentState.BIDDING, now)
        case NotIncluded(text):
            if row.reason is None and row.tries + 1 < CREATES:
                return Decision(msgspec.structs.replace(row, tries=row.tries + 1), Sign.CREATE)
            return _closed(row, now, NOT_CREATED, text)
        case Refused(refusal, text):
            return _closed(row, now, NO_FUNDS if refusal is Refusal.NO_FUNDS else REFUSED, text)
        case _:
            return Decision(row)


def _bidding(row: Deployment, event: Event, now: float, budgets: Budgets) -> Decision:
    if not isinstance(event, Bids):
        return Decision(row)
    waited = now - row.state_since
    bids = bidding.acceptable(event.bids, row, event.limits)
    enough = len(bids) >= budgets.bids_wanted and waited >= budgets.bids_first_s
    if bids and (enough or waited >= budgets.bids_enough_s):
        best = bidding.best(bids, event.limits)
        chosen = msgspec.structs.replace(
            row, provider=best.provider, gseq=best.gseq, oseq=best.oseq, bseq=best.bseq, price=best.price
        )
        return _to(chosen, DeploymentState.LEASING, now, Sign.LEASE)
    if waited >= budgets.bids_give_up_s:
        return _closing(row, now, NO_BIDS)
    return Decision(row)


def _leasing(row: Deployment, event: Event, now: float) -> Decision:
    match event:
        case Included() | Exists():
            return _to(row, DeploymentState.DELIVERING, now)
        case Refused(Refusal.GONE, text):
            return _closed(row, now, CHAIN_CLOSED, text)
        case NotIncluded() if row.tries + 1 < LEASES:
            # The bid is as good as before: gas that ran out is raised.
            return Decision(msgspec.structs.replace(row, tries=row.tries + 1), Sign.LEASE)
        case Refused(Refusal.BID_GONE):
            excluded = row.excluded if row.provider is None else (*row.excluded, row.provider)
            # The time spent on bids goes on: an order whose bids all vanish is given up as one without bids.
            return Decision(
                msgspec.structs.replace(
                    row, state=DeploymentState.BIDDING, provider=None, price=None, excluded=excluded, tries=0
                )
            )
        case Refused(_, text):
            return _closing(row, now, NOT_LEASED, text)
        case NotIncluded(text):
            return _closing(row, now, NOT_LEASED, text)
        case _:
            return Decision(row)


def _delivering(row: Deployment, event: Event, now: float, budgets: Budgets) -> Decision:
    late = now - row.state_since >= budgets.manifest_s
    match event:
        case Accepted():
            return _to(row, DeploymentState.STARTING, now)
        case ManifestRejected(text):
            return _closing(row, now, REJECTED, text)
        case NoLeaseYet() if late:
            return _closing(row, now, PROVIDER_FAILED, "the provider does not know the lease")
        case ProviderFailed(text) if late:
            return _closing(row, now, PROVIDER_FAILED, text)
        case _:
            return Decision(row)


def _starting(row: Deployment, event: Event, now: float, budgets: Budgets) -> Decision:
    late = now - row.state_since >= budgets.ready_s
    match event:
        case Ready(endpoint):
            return _to(msgspec.structs.replace(row, endpoint=endpoint), DeploymentState.SERVING, now)
        case NotReady(text) if late:
            return _closing(row, now, NEVER_READY, text)
        case ProviderFailed(text) if late:
            return _closing(row, now, PROVIDER_FAILED, text)
        case _:
            return Decision(row)


def _closing_goes_on(row: Deployment, event: Event, now: float) -> Decision:
    match event:
        case Included() | Refused(Refusal.GONE):
            return _closed(row, now, row.reason or "")
        case NotIncluded() | Refused():
            return Decision(msgspec.structs.replace(row, tries=row.tries + 1), Sign.CLOSE)
        case _:
            return Decision(row)


def _close_on_demand(row: Deployment, reason: str, now: float) -> Decision:
    match row.state:
        case DeploymentState.CREATING:
            return Decision(row if row.reason is not None else msgspec.structs.replace(row, reason=reason))
        case DeploymentState.CLOSING:
            return Decision(row)
        case _:
            return _closing(row, now, reason)


def _to(row: Deployment, state: DeploymentState, now: float, sign: Sign | None = None) -> Decision:
    return Decision(msgspec.structs.replace(row, state=state, state_since=now, tries=0), sign)


def _closing(row: Deployment, now: float, reason: str, text: str = "") -> Decision:
    reason = row.reason or reason
    row = msgspec.structs.replace(row, reason=reason, logs=row.logs or text[:4_000])
    return _to(row, DeploymentState.CLOSING, now, Sign.CLOSE)


def _closed(row: Deployment, now: float, reason: str, text: str = "") -> Decision:
    row = msgspec.structs.replace(
        row, reason=row.reason or reason, logs=row.logs or text[:4_000], closed_at=now, tries=0
    )
    return Decision(msgspec.structs.replace(row, state=DeploymentState.CLOSED, state_since=now))
