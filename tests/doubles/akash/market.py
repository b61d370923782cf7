"""Orders, bids and leases."""

from typing import Final

from msgspec.structs import replace

from tests.doubles.akash import escrow
from tests.doubles.akash.errors import (
    ALREADY_RECLAIMING,
    ATTRIBUTE_MISMATCH,
    BID_EXISTS,
    BID_NOT_FOUND,
    BID_NOT_OPEN,
    BID_OVER_ORDER,
    GROUP_NOT_FOUND,
    GROUP_NOT_OPEN,
    LEASE_NOT_ACTIVE,
    MARKET_DEPOSIT,
    NO_LEASE_FOR_ORDER,
    NOT_RECLAIMABLE,
    ORDER_CLOSED,
    ORDER_NOT_FOUND,
    ORDER_NOT_OPEN,
    RECLAMATION_NOT_STARTED,
    RECLAMATION_REQUIRED,
    RECLAMATION_TOO_SHORT,
    RECLAMATION_WINDOW,
    UNKNOWN_BID,
)
from tests.doubles.akash.messages import BidId, Coin, Deposit, GroupSpec
from tests.doubles.akash.store import UACT, BidRow, GroupRow, LeaseRow, OrderRow, PaymentRow, State

OWNER: Final = "lease_closed_owner"
UNSPECIFIED: Final = "lease_closed_reason_unspecified"
UNSTABLE: Final = "lease_closed_reason_unstable"
DECOMMISSION: Final = "lease_closed_reason_decommission"
MANIFEST_TIMEOUT: Final = "lease_closed_reason_manifest_timeout"
INSUFFICIENT_FUNDS: Final = "lease_closed_reason_insufficient_funds"


def create_order(state: State, group: GroupRow, window: int | None) -> None:
    """Open the next order of a group."""
    before = state.orders.those(state.orders_of.of((group.owner, group.dseq)))
    oseq = 1 + sum(1 for order in before if order.gseq == group.gseq)
    order = OrderRow(group.owner, group.dseq, group.gseq, oseq, group.spec, state.height, reclamation_s=window)
    key = (order.owner, order.dseq, order.gseq, order.oseq)
    state.orders.put(key, order)
    state.orders_of.add((group.owner, group.dseq), key)


def price_cap(spec: GroupSpec) -> int:
    """Return the most that may be bid for a group (dec, a block)."""
    return sum(int(unit.price.amount) * unit.count for unit in spec.resources if unit.price)


def matches(spec: GroupSpec, attributes: dict[str, str], auditors: frozenset[str]) -> bool:
    """Return whether a provider with these attributes, signed by these auditors, may bid for a group."""
    wanted = spec.requirements
    if wanted is None:
        return True
    signed = wanted.signed_by
    if signed and (
        not auditors.issuperset(signed.all_of) or (signed.any_of and not auditors.intersection(signed.any_of))
    ):
        return False
    return all(attributes.get(each.key) == each.value for each in wanted.attributes)


def create_bid(
    state: State, bid: BidRow, attributes: dict[str, str], auditors: frozenset[str], deposit: int | None = None
) -> None:
    """Place a provider's bid. Raises Refused."""
    order = state.orders.get((bid.owner, bid.dseq, bid.gseq, bid.oseq))
    if len(bids_of(state, order)) >= state.params.max_bids if order else False:
        raise MARKET_DEPOSIT.error("too many existing bids")
    if order is None:
        raise ORDER_NOT_FOUND.error()
    if order.state != "open":
        raise ORDER_NOT_OPEN.error()
    if bid.price > price_cap(order.spec):
        raise BID_OVER_ORDER.error()
    if order.reclamation_s is not None and bid.reclamation_s is None:
        raise RECLAMATION_REQUIRED.error()
    if order.reclamation_s is not None and (bid.reclamation_s or 0) < order.reclamation_s:
        raise RECLAMATION_TOO_SHORT.error()
    if not matches(order.spec, attributes, auditors):
        raise ATTRIBUTE_MISMATCH.error()
    if state.bids.get(bid.key) is not None:
        raise BID_EXISTS.error()
    amount = Coin(UACT, str(state.params.bid_min_deposit if deposit is None else deposit))
    if int(amount.amount) < state.params.bid_min_deposit:
        raise MARKET_DEPOSIT.error()
    deposits = escrow.authorize(state, bid.provider, Deposit(amount, (escrow.BALANCE,)))
    state.bids.put(bid.key, replace(bid, created_at=state.height))
    state.bids_of.add((bid.owner, bid.dseq), bid.key)
    escrow.create(state, "bid", bid.xid, bid.provider, deposits)


def bids_of(state: State, order: OrderRow) -> list[BidRow]:
    found = state.bids.those(state.bids_of.of((order.owner, order.dseq)))
    return [bid for bid in found if (bid.gseq, bid.oseq) == (order.gseq, order.oseq)]


def create_lease(state: State, id_: BidId) -> None:
    """Accept a bid. Raises Refused."""
    bid = state.bids.get((id_.owner, id_.dseq, id_.gseq, id_.oseq, id_.provider))
    if bid is None:
        raise BID_NOT_FOUND.error()
    if bid.state != "open":
        raise BID_NOT_OPEN.error()
    order = state.orders.get((id_.owner, id_.dseq, id_.gseq, id_.oseq))
    if order is None:
        raise ORDER_NOT_FOUND.error()
    if order.state != "open":
        raise ORDER_NOT_OPEN.error()
    group = state.groups.get((id_.owner, id_.dseq, id_.gseq))
    if group is None:
        raise GROUP_NOT_FOUND.error()
    if group.state != "open":
        raise GROUP_NOT_OPEN.error()
    escrow.create_payment(state, f"{bid.owner}/{bid.dseq}", _payment_xid(bid.key), bid.provider, bid.price)
    lease = LeaseRow(*bid.key, bid.price, created_at=state.height, created_s=state.time_s, window_s=bid.reclamation_s)
    state.leases.put(lease.key, lease)
    _put_order(state, order, "active")
    state.bids.put(bid.key, replace(bid, state="active"))
    for other in bids_of(state, order):
        if other.key != bid.key and other.state == "open":
            _end_bid(state, other, "lost")


def close_lease(state: State, id_: BidId) -> None:
    """End a lease at the owner's wish; its group stays open, so that a new order opens. Raises Refused."""
    order = state.orders.get((id_.owner, id_.dseq, id_.gseq, id_.oseq))
    if order is None:
        raise ORDER_NOT_FOUND.error()
    if order.state != "active":
        raise ORDER_CLOSED.error()
    lease = _lease_of(state, order)
    if lease is None:
        raise NO_LEASE_FOR_ORDER.error()
    if not lease.serves:
        raise ORDER_CLOSED.error()
    _close_payment(state, lease, OWNER)
    group = state.groups.get((lease.owner, lease.dseq, lease.gseq))
    if group is not None and group.state == "open":
        create_order(state, group, order.reclamation_s)


def close_bid(state: State, bid: BidRow, reason: str) -> None:
    """Withdraw a provider's bid, or end its lease: the group is then paused. Raises Refused."""
    bid = _known(state, bid)
    if bid.state == "open":
        _end_bid(state, bid, "closed")
        return
    lease = state.leases.get(bid.key)
    if bid.state != "active" or lease is None or not lease.serves:
        raise LEASE_NOT_ACTIVE.error()
    if lease.window_s is not None:
        if lease.reclaim_started_s is None:
            raise RECLAMATION_NOT_STARTED.error()
        if state.time_s < lease.reclaim_started_s + lease.window_s:
            raise RECLAMATION_WINDOW.error()
    _close_payment(state, lease, reason)
    group = state.groups.get((lease.owner, lease.dseq, lease.gseq))
    if group is not None and group.state == "open":
        state.groups.put((group.owner, group.dseq, group.gseq), replace(group, state="paused"))


def start_reclaim(state: State, bid: BidRow, reason: str) -> None:
    """Give notice: the lease serves and pays until its window is over. Raises Refused."""
    lease = state.leases.get(_known(state, bid).key)
    if lease is None or not lease.serves:
        raise LEASE_NOT_ACTIVE.error()
    if lease.window_s is None:
        raise NOT_RECLAIMABLE.error()
    if lease.reclaim_started_s is not None:
        raise ALREADY_RECLAIMING.error()
    state.leases.put(
        lease.key, replace(lease, state="reclaiming", reclaim_started_s=state.time_s, reclaim_reason=reason)
    )


def on_payment_closed(state: State, payment: PaymentRow) -> None:
    """End the lease that a payment was for, unless it has ended already."""
    owner, dseq = payment.aid.split("/")
    gseq, oseq, provider = payment.xid.split("/")
    lease = state.leases.get((owner, int(dseq), int(gseq), int(oseq), provider))
    if lease is None or not lease.serves:
        return
    if payment.state == "overdrawn":
        _end_lease(state, lease, "insufficient_funds", INSUFFICIENT_FUNDS)
    else:
        _end_lease(state, lease, "closed", UNSPECIFIED)


def on_group_closed(state: State, group: GroupRow, ended: str) -> None:
    """Close the orders, bids and leases of a group."""
    for order in state.orders.those(state.orders_of.of((group.owner, group.dseq))):
        if order.gseq != group.gseq or order.state == "closed":
            continue
        _put_order(state, order, "closed")
        for bid in bids_of(state, order):
            if bid.state in ("open", "active"):
                _end_bid(state, bid, "closed")
        lease = _lease_of(state, order)
        if lease is not None and lease.serves:
            if ended == "insufficient_funds":
                _end_lease(state, lease, ended, INSUFFICIENT_FUNDS)
            else:
                _end_lease(state, lease, "closed", OWNER)


def _known(state: State, bid: BidRow) -> BidRow:
    known = state.bids.get(bid.key)
    if known is None:
        raise UNKNOWN_BID.error()
    return known


def _lease_of(state: State, order: OrderRow) -> LeaseRow | None:
    found = (state.leases.get(bid.key) for bid in bids_of(state, order))
    return next((lease for lease in found if lease is not None), None)


def _close_payment(state: State, lease: LeaseRow, reason: str) -> None:
    """Settle and end the lease by its payment; where that shows that nothing is left, it ends for that reason."""
    escrow.close_payment(state, f"{lease.owner}/{lease.dseq}", _payment_xid(lease.key))
    ended = state.leases.get(lease.key)
    if ended is not None and ended.state == "closed":
        state.leases.put(lease.key, replace(ended, reason=reason))


def _end_lease(state: State, lease: LeaseRow, ended: str, reason: str) -> None:
    state.leases.put(lease.key, replace(lease, state=ended, closed_on=state.height, reason=reason))
    order = state.orders.get((lease.owner, lease.dseq, lease.gseq, lease.oseq))
    if order is not None and order.state != "closed":
        _put_order(state, order, "closed")
    bid = state.bids.get(lease.key)
    if bid is not None and bid.state == "active":
        _end_bid(state, bid, "closed")


def _end_bid(state: State, bid: BidRow, ended: str) -> None:
    state.bids.put(bid.key, replace(bid, state=ended))
    escrow.close(state, "bid", bid.xid)


def _put_order(state: State, order: OrderRow, now: str) -> None:
    state.orders.put((order.owner, order.dseq, order.gseq, order.oseq), replace(order, state=now))


def _payment_xid(key: tuple[str, int, int, int, str]) -> str:
    return f"{key[2]}/{key[3]}/{key[4]}"
