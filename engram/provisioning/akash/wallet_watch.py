"""What the account has left: AKT for fees, ACT for escrows; alarms when it is little, and ACT minted ahead."""

from collections.abc import Mapping, Sequence
from typing import Final, final

import msgspec
import structlog

from engram.provisioning.akash import bidding, costs, records
from engram.provisioning.akash.minting import Minting
from engram.provisioning.akash.model import SUCCESSOR, Deployment, DeploymentState
from engram.provisioning.akash.ports import AkashParts

MICRO: Final = 1_000_000
LEAST_DEPOSIT_ACT: Final = 0.5
FEES_AKT: Final = 0.1
"""What is kept for the fees of one deployment: it must be possible to close it."""
UNKNOWN: Final = 1_000_000
MARGIN_OVER_S: Final = 7 * 86_400.0

_log = structlog.get_logger("engram.provisioning.akash")


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """What may still be sold."""

    places: int
    """How many deployments there may be at once, as far as is known: those that serve a session or will, and what the
    balances pay the least deposits and the fees of. Whether a session can be paid that is longer than the least
    deposit lasts, `spare_uact` says."""
    spare_uact: int | None = None
    """ACT that no node needs which there is; None before the first look."""
    paid_sessions: frozenset[str] = frozenset()
    """Sessions of those nodes. One whose deployment is being closed needs another one, or none."""


class _Seen(msgspec.Struct, frozen=True):
    akt: float
    act: float
    deposits: Mapping[int, int]
    """What each deployment had been given by then, uact."""


@final
class WalletWatch:
    """Reads the balances and the margin for the metrics."""

    def __init__(self, parts: AkashParts) -> None:
        self._parts = parts
        self._minting = Minting(parts)
        self._seen: _Seen | None = None

    def left(self, live: Sequence[Deployment], now: float) -> Left:
        """Return what the balances of the last look leave, seen from the deployments that are not closed now: what
        they have been given since, and what they still need, is not sold again."""
        serving = [
            row for row in live if row.state is not DeploymentState.CLOSING and not row.token.endswith(SUCCESSOR)
        ]
        sessions = frozenset(row.session_id for row in serving)
        if self._seen is None:
            return Left(places=UNKNOWN, paid_sessions=sessions)
        seen = self._seen
        given = sum(max(0, row.deposit_uact - seen.deposits.get(row.dseq, 0)) for row in live)
        owed = sum(bidding.owed_uact(row, now) for row in live)
        spare = max(0, int(seen.act * MICRO) - given - owed)
        deposits = int(spare / MICRO / LEAST_DEPOSIT_ACT)
        places = max(0, len(serving) + min(deposits, int(seen.akt / FEES_AKT) - len(live)))
        return Left(places=places, spare_uact=spare, paid_sessions=sessions)

    async def look(self) -> None:
        """Look once. Raises Unavailable."""
        parts = self._parts
        # Before the balances: a deposit that is made meanwhile counts twice until the next look, and never not at all.
        live = await parts.ledger.read(records.all_live)
        akt = min(await parts.chain.balance("uakt")) / MICRO
        act, at_most = (amount / MICRO for amount in await parts.chain.balance("uact"))
        now = parts.clock.now()
        owed = sum(bidding.owed_uact(row, now) for row in live) / MICRO
        self._seen = _Seen(akt, act, {row.dseq: row.deposit_uact for row in live})
        parts.metrics.akash_balance.show({"akt": akt, "act": act})
        parts.metrics.akash_spare_act.set(act - owed)
        if akt < parts.alarm_akt:
            _log.error("akash_akt_low", balance=akt, alarm=parts.alarm_akt, address=parts.chain.owner)
        if act - owed < parts.alarm_act:
            _log.error("akash_act_low", balance=act, owed=owed, alarm=parts.alarm_act, address=parts.chain.owner)
        margin = costs.margin(
            await parts.ledger.read(lambda c: costs.of_sessions(c, now, now - MARGIN_OVER_S)), parts.akt_usd
        )
        if margin is not None:
            parts.metrics.akash_margin.set(margin)
        await self._minting.look(too_little=at_most - owed < parts.alarm_act)
