"""What the account has left: AKT for fees, ACT for escrows; alarms when it is little, and ACT minted ahead."""

from typing import Final, final

import structlog

from engram.provisioning.akash import costs
from engram.provisioning.akash.minting import Minting
from engram.provisioning.akash.ports import AkashParts

MICRO: Final = 1_000_000
MARGIN_OVER_S: Final = 7 * 86_400.0

_log = structlog.get_logger("engram.provisioning.akash")


@final
class WalletWatch:
    """Reads the balances and the margin for the metrics."""

    def __init__(self, parts: AkashParts) -> None:
        self._parts = parts
        self._minting = Minting(parts)

    async def look(self) -> None:
        """Look once. Raises Unavailable."""
        parts = self._parts
        akt = await parts.chain.balance("uakt") / MICRO
        act = await parts.chain.balance("uact") / MICRO
        parts.metrics.akash_balance.labels("akt").set(akt)
        parts.metrics.akash_balance.labels("act").set(act)
        if akt < parts.alarm_akt:
            _log.error("akash_akt_low", balance=akt, alarm=parts.alarm_akt, address=parts.chain.owner)
        if act < parts.alarm_act:
            _log.error("akash_act_low", balance=act, alarm=parts.alarm_act, address=parts.chain.owner)
        now = parts.clock.now()
        margin = costs.margin(await parts.ledger.read(lambda c: costs.of_sessions(c, now, now - MARGIN_OVER_S)))
        if margin is not None:
            parts.metrics.akash_margin.set(margin)
        await self._minting.look(too_little=act < parts.alarm_act)
