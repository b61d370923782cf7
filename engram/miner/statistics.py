"""Counters of a node's work, in memory, for /stats and /wallet-stats."""

from __future__ import annotations

from collections import OrderedDict, deque
from statistics import median
from typing import final

from engram.clock import Clock
from engram.hotkeys import PublicKey, ss58

_LATENCIES = 100
_DAY_S = 86_400
_WALLETS = 1_000


@final
class Statistics:
    """Counts since the start of the process; `queries_today` since midnight UTC."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started_at = clock.monotonic()
        self._latencies_ms: deque[float] = deque(maxlen=_LATENCIES)
        self._day = self._today()
        self._queries = 0
        self._proofs = 0
        self._failed_proofs = 0
        self._wallets: OrderedDict[PublicKey, tuple[int, float]] = OrderedDict()

    @property
    def queries_today(self) -> int:
        """Answered searches since midnight UTC."""
        return self._queries if self._day == self._today() else 0

    @property
    def p50_latency_ms(self) -> float | None:
        """Median over the last 100 searches; None before the first."""
        return round(median(self._latencies_ms), 3) if self._latencies_ms else None

    @property
    def proof_rate(self) -> float | None:
        """Share of challenges answered with a proof; an unknown CID is not a failure. None before the first."""
        challenged = self._proofs + self._failed_proofs
        return round(self._proofs / challenged, 6) if challenged else None

    @property
    def uptime_s(self) -> float:
        """Seconds since the process started to serve."""
        return self._clock.monotonic() - self._started_at

    def query_answered(self, latency_ms: float) -> None:
        """Count a search."""
        if self._day != self._today():
            self._day, self._queries = self._today(), 0
        self._queries += 1
        self._latencies_ms.append(latency_ms)

    def proof_given(self) -> None:
        """Count a challenge that was met."""
        self._proofs += 1

    def proof_failed(self) -> None:
        """Count a challenge that could not be met through this node's fault."""
        self._failed_proofs += 1

    def used_by(self, signer: PublicKey | None) -> None:
        """Count a request by its signer; the last 1,000 signers are remembered."""
        if signer is None:
            return
        requests, _ = self._wallets.pop(signer, (0, 0.0))
        self._wallets[signer] = requests + 1, self._clock.now()
        if len(self._wallets) > _WALLETS:
            self._wallets.popitem(last=False)

    def wallets(self) -> list[dict[str, object]]:
        """Return the signers of requests since the start, most recent first."""
        return [
            {"hotkey": ss58.encode(signer), "requests": requests, "last_seen_at": seen}
            for signer, (requests, seen) in reversed(self._wallets.items())
        ]

    def _today(self) -> int:
        return int(self._clock.now() // _DAY_S)
