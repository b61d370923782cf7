"""The session's state machine, its prices and its paid time: tables first, no clock, no I/O.

| state            | event            | next         |
|------------------|------------------|--------------|
| payment_pending  | settled          | provisioning |
| payment_pending  | payment_failed   | failed       |
| payment_pending  | end              | stopping     |
| provisioning     | node_ready       | active       |
| provisioning     | provision_failed | failed       |
| provisioning     | end              | stopping     |
| active           | degrade          | degraded     |
| degraded         | recover          | active       |
| active, degraded | end              | stopping     |
| stopping         | destroyed        | stopped, expired or failed, as its end reason says |

Everything else leaves the session as it is: a stop is never undone, a second stop keeps the first reason, and a
terminal state is reached only when no node is left.
"""

from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Final

from config import pricing
from engram.sessions.errors import InvalidDuration, UnknownTier
from engram.sessions.model import (
    LIVE,
    RUNNING,
    TERMINAL,
    ClockSighting,
    EndReason,
    Instant,
    MemoryState,
    Session,
    SessionEvent,
    SessionState,
    Tier,
    TierName,
)

TRANSITIONS: Mapping[tuple[SessionState, SessionEvent], SessionState] = MappingProxyType(
    {
        (SessionState.PAYMENT_PENDING, SessionEvent.SETTLED): SessionState.PROVISIONING,
        (SessionState.PAYMENT_PENDING, SessionEvent.PAYMENT_FAILED): SessionState.FAILED,
        (SessionState.PAYMENT_PENDING, SessionEvent.END): SessionState.STOPPING,
        (SessionState.PROVISIONING, SessionEvent.NODE_READY): SessionState.ACTIVE,
        (SessionState.PROVISIONING, SessionEvent.PROVISION_FAILED): SessionState.FAILED,
        (SessionState.PROVISIONING, SessionEvent.END): SessionState.STOPPING,
        (SessionState.ACTIVE, SessionEvent.DEGRADE): SessionState.DEGRADED,
        (SessionState.DEGRADED, SessionEvent.RECOVER): SessionState.ACTIVE,
        (SessionState.ACTIVE, SessionEvent.END): SessionState.STOPPING,
        (SessionState.DEGRADED, SessionEvent.END): SessionState.STOPPING,
    }
)

ENDS: Mapping[EndReason, SessionState] = MappingProxyType(
    {
        EndReason.USER: SessionState.STOPPED,
        EndReason.OPERATOR: SessionState.STOPPED,
        EndReason.EXPIRED: SessionState.EXPIRED,
        EndReason.PAYMENT: SessionState.FAILED,
        EndReason.PROVISION: SessionState.FAILED,
        EndReason.NODE_LOST: SessionState.FAILED,
    }
)
"""Where `destroyed` leads, by end reason."""

_SIZES = {TierName.LITE: (1, 2, 10), TierName.STANDARD: (2, 4, 20), TierName.PRO: (4, 8, 40)}


def next_state(state: SessionState, event: SessionEvent, end_reason: EndReason | None) -> SessionState | None:
    """Return the state that `event` leads to, or None when it does not apply in `state`.

    `end_reason` is the one the session has already; it decides where `destroyed` leads (absent: stopped).
    """
    if event is SessionEvent.DESTROYED:
        return ENDS[end_reason or EndReason.USER] if state is SessionState.STOPPING else None
    return TRANSITIONS.get((state, event))


def end_reason_of(event: SessionEvent, given: EndReason | None) -> EndReason | None:
    """Return the end reason that a session gets by `event`; None when the event ends nothing."""
    match event:
        case SessionEvent.END:
            return given or EndReason.USER
        case SessionEvent.PAYMENT_FAILED:
            return EndReason.PAYMENT
        case SessionEvent.PROVISION_FAILED:
            return EndReason.PROVISION
        case _:
            return None


# Prices.


def tiers(lite_usd_per_hour: float) -> Mapping[TierName, Tier]:
    """Return what is on sale when an hour of `lite` costs this many dollars; prices scale 1 : 2 : 3.6."""
    return MappingProxyType(
        {
            name: Tier(name, *size, usd_micros_per_hour=pricing.hour_units(lite_usd_per_hour, name))
            for name, size in _SIZES.items()
        }
    )


def tier_named(table: Mapping[TierName, Tier], name: object) -> Tier:
    """Return the tier of that name. Raises UnknownTier with the names there are."""
    if isinstance(name, str) and name in table:
        return table[TierName(name)]
    raise UnknownTier(f"Unknown tier {name!r}. Valid: {[str(known) for known in table]}")


def paid_seconds(hours: object, min_hours: float, max_hours: float) -> float:
    """Return `hours` in seconds. Raises InvalidDuration unless it is a finite number within the limits."""
    wrong = InvalidDuration(f"duration_hours must be between {min_hours:g} and {max_hours:g}.")
    if isinstance(hours, bool) or not isinstance(hours, int | float):
        raise wrong
    if not (min_hours <= hours <= max_hours):  # NaN and infinities are refused here as well
        raise wrong
    return float(Fraction(repr(hours)) * 3600)


def price(tier: Tier, hours: float) -> int:
    """Return the price of `hours` (finite) in micro-dollars, which are also atomic USDC units (6 decimals).

    Exact: `hours` is taken as the decimal number it is written as, and only the product is rounded (half up).
    """
    return pricing.price_units(tier.usd_micros_per_hour, hours)


# Paid time.


def elapsed_s(since: Instant, now: Instant) -> float:
    """Return the seconds from `since` to `now`, never negative.

    Within one boot of the machine the wall clock does not matter; across a reboot it is all there is.
    """
    if since.boot == now.boot:
        return max(0.0, now.monotonic - since.monotonic)
    return max(0.0, now.wall - since.wall)


def sighted(known: ClockSighting | None, reading: float, at: float) -> ClockSighting:
    """Return what a process knows once it has seen the shared clock's row at this reading, at `at` of its own clock."""
    if known is None:
        return ClockSighting(reading, at, None)
    if reading < known.reading:  # an older snapshot
        return known
    before = known.before if reading == known.reading else known.seen_at
    return ClockSighting(reading, max(at, known.seen_at), before)


def shared_elapsed_s(server_s: float, known: ClockSighting, at: float) -> float:
    """Return the seconds since the shared clock's row was moved, never negative: those of the server's wall clock, but
    no more than have passed by this machine's monotonic clock since the row was seen before it was moved.

    So a server whose clock is set, or a promoted one with another clock, takes from no session more than the time
    between two looks, and gives it none for longer.
    """
    if known.before is None:
        return max(0.0, server_s)
    return max(0.0, min(server_s, at - known.before))


def used_s(session: Session, now: Instant) -> float:
    """Return the paid seconds used up by `now`."""
    if session.counted is None:
        return session.used_s
    return session.used_s + elapsed_s(session.counted, now)


def remaining_s(session: Session, now: Instant) -> float:
    """Return what is left of the paid time: all of it until the node is active, nothing once it is stopping."""
    if session.state not in LIVE:
        return 0.0
    return max(0.0, session.paid_s - used_s(session, now))


def expires_at(session: Session, now: Instant) -> float:
    """Return the unix time at which paid time ends; provisional until the node is active.

    While paid time runs it is the same at each reading, as long as the wall clock is not set: it is reckoned from where
    the time was last counted. A clock that was set since moves it by whole seconds.
    """
    if session.state in LIVE and session.counted is not None:
        counted = session.counted
        set_by = now.wall - counted.wall - elapsed_s(counted, now) if counted.boot == now.boot else 0.0
        return round(counted.wall + session.paid_s - session.used_s, 3) + round(set_by)
    if session.state in LIVE:
        return now.wall + session.paid_s - used_s(session, now)
    return (session.active_at or session.created_at) + session.paid_s


EXTENSION_PAUSE_S: Final = 120.0
"""How long an extension whose payment is not decided puts expiry off: a buyer can keep an outcome open for ever (by
cancelling the authorization while it is settled), and shall not live on that. Nodes end at about the same time."""


def memory(session: Session) -> MemoryState:
    """Return what became of the memory of the session's node."""
    if session.emptied_at is None:
        return MemoryState.KEPT
    return MemoryState.LOST if session.restored_at is None else MemoryState.RESTORED


def has_expired(session: Session, now: Instant) -> bool:
    """Return whether the paid time of a running session is used up, and an extension that is being paid for has had its
    EXTENSION_PAUSE_S."""
    pause_s = EXTENSION_PAUSE_S if session.pending_extensions else 0.0
    return session.state in RUNNING and session.paid_s - used_s(session, now) <= -pause_s


def takes_time(session: Session) -> bool:
    """Return whether seconds may still be added to the session."""
    return session.state in LIVE


def is_over(session: Session) -> bool:
    """Return whether nothing of the session is left."""
    return session.state in TERMINAL
