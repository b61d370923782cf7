"""What the account has left: AKT for fees, ACT for escrows; alarms when it is little, and ACT minted ahead."""

from typing import Final, final

import structlog

from engram.provisioning.akash import bidding, costs, records
from engram.provisioning.akash.minting import Minting
from engram.provisioning.akash.ports import AkashParts

MICRO: Final = 1_000_000
LEAST_DEPOSIT_ACT: Final = 0.5
FEES_AKT: Final = 0.1
"""What is kept for the fees of one deployment: it must be possible to close it."""
UNKNOWN: Final = 1_000_000
MARGIN_OVER_S: Final = 7 * 86_400.0

_log = structlog.get_logger("engram.provisioning.akash")


@final
class WalletWatch:
    """Reads the balances and the margin for the metrics."""

    def __init__(self, parts: AkashParts) -> None:
        self._parts = parts
        self._minting = Minting(parts)
        self._places = UNKNOWN

    @property
    def places(self) -> int:
        """How many deployments there may be at once, as far as is known: those at the last look, and what the balances
        of then pay the least deposits and the fees of. What the sessions that were sold still need is not sold again.
        """
        return self._places

    async def look(self) -> None:
        """Look once. Raises Unavailable."""
        parts = self._parts
        live = await parts.ledger.read(records.all_live)
        akt = min(await parts.chain.balance("uakt")) / MICRO
        act, at_most = (amount / MICRO for amount in await parts.chain.balance("uact"))
        now = parts.clock.now()
        owed = sum(bidding.owed_uact(row, now) for row in live) / MICRO
        deposits = max(0, int((act - owed) / LEAST_DEPOSIT_ACT))
        self._places = max(0, len(live) + min(deposits, int(akt / FEES_AKT) - len(live)))
        parts.metrics.akash_balance.show({"akt": akt, "act": act})
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
