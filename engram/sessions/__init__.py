"""Compute sessions: tiers and prices, the state machine, paid time, records."""

from engram.sessions import counts, history, paid_clock, records, rules
from engram.sessions.clock import ClockInstants, Instants, SystemInstants
from engram.sessions.errors import InvalidDuration, SessionError, UnknownTier
from engram.sessions.model import (
    HELD,
    LIVE,
    RUNNING,
    TERMINAL,
    ClockSighting,
    EndReason,
    EventRecord,
    Instant,
    MemoryState,
    RunningSession,
    Session,
    SessionEvent,
    SessionState,
    Tier,
    TierName,
)

__all__ = [
    "HELD",
    "LIVE",
    "RUNNING",
    "TERMINAL",
    "ClockInstants",
    "ClockSighting",
    "EndReason",
    "EventRecord",
    "Instant",
    "Instants",
    "InvalidDuration",
    "MemoryState",
    "RunningSession",
    "Session",
    "SessionError",
    "SessionEvent",
    "SessionState",
    "SystemInstants",
    "Tier",
    "TierName",
    "UnknownTier",
    "counts",
    "history",
    "paid_clock",
    "records",
    "rules",
]
