"""A session as it is read on the event loop: one row of paid_clock.SESSIONS, decoded in one step."""

import msgspec

from engram.sessions.model import EndReason, Instant, Session, SessionState, TierName


class IndexedSession(msgspec.Struct, frozen=True, array_like=True):
    """The columns in their order; blobs are in hex."""

    id: str
    controller: str
    state: SessionState
    tier: TierName
    paid_s: float
    amount_usd_micros: int
    network: str
    payment_id: str
    created_at: float
    active_at: float | None
    ended_at: float | None
    end_reason: EndReason | None
    error: str | None
    used_s: float
    counted_from: float | None
    pending_extensions: int
    node_token: str | None
    node_endpoint: str | None
    node_hotkey: str | None
    launch_attempts: int
    crashes: int
    quarantined_at: float | None
    node_store: str | None
    emptied_at: float | None
    restored_at: float | None
    reads_s: float
    wall: float
    monotonic: float
    boot: str

    def session(self) -> Session:
        """Return the session; paid time is settled as paid_clock.settle does."""
        used_s, counted = self.used_s, None
        if self.counted_from is not None:
            used_s += self.reads_s - self.counted_from
            counted = Instant(self.wall, self.monotonic, self.boot)
        return Session(
            id=self.id,
            controller=bytes.fromhex(self.controller),
            state=self.state,
            tier=self.tier,
            paid_s=self.paid_s,
            amount_usd_micros=self.amount_usd_micros,
            network=self.network,
            payment_id=self.payment_id,
            created_at=self.created_at,
            active_at=self.active_at,
            ended_at=self.ended_at,
            end_reason=self.end_reason,
            error=self.error,
            used_s=used_s,
            counted=counted,
            pending_extensions=self.pending_extensions,
            node_token=self.node_token,
            node_endpoint=self.node_endpoint,
            node_hotkey=None if self.node_hotkey is None else bytes.fromhex(self.node_hotkey),
            launch_attempts=self.launch_attempts,
            crashes=self.crashes,
            quarantined_at=self.quarantined_at,
            node_store=self.node_store,
            emptied_at=self.emptied_at,
            restored_at=self.restored_at,
        )
