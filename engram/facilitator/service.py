"""The facilitator's answers as x402 JSON, without HTTP."""

from typing import final

from engram.clock import Clock
from engram.facilitator import records, rules
from engram.facilitator.rules import Malformed
from engram.ledger import Ledger
from engram.payments.keccak import checksummed
from engram.payments.networks import PLAY
from engram.payments.x402 import SCHEME, JsonObject


@final
class PlayFacilitator:
    """Checks and settles play money. `opening_balance` (atomic units) is what an unknown address owns."""

    def __init__(self, ledger: Ledger, clock: Clock, opening_balance: int) -> None:
        self._ledger = ledger
        self._clock = clock
        self._opening_balance = opening_balance

    async def verify(self, body: bytes) -> tuple[int, JsonObject]:
        """Returns HTTP status and VerifyResponse."""
        try:
            request = rules.read_request(body)
        except Malformed as malformed:
            return 400, {"isValid": False, "invalidReason": malformed.reason}
        signed = request.payload.authorization
        payer = checksummed(signed.payer)
        now = self._clock.now()
        reason = rules.refused_for_ever(request) or await self._ledger.read(
            lambda connection: records.refused(connection, signed, now, self._opening_balance)
        )
        if reason is not None:
            return 200, {"isValid": False, "invalidReason": reason, "payer": payer}
        return 200, {"isValid": True, "payer": payer}

    async def settle(self, body: bytes) -> tuple[int, JsonObject]:
        """Returns HTTP status and SettleResponse. The same authorization again gets the same transaction."""
        try:
            request = rules.read_request(body)
        except Malformed as malformed:
            return 400, _failure(malformed.reason)
        signed = request.payload.authorization
        payer = checksummed(signed.payer)
        reason = rules.refused_for_ever(request)
        if reason is not None:
            return 200, _failure(reason) | {"payer": payer}
        now = self._clock.now()
        outcome = await self._ledger.write(
            lambda connection: records.settle(connection, signed, now, self._opening_balance)
        )
        if isinstance(outcome, str):
            return 200, _failure(outcome) | {"payer": payer}
        return 200, {
            "success": True,
            "transaction": outcome.transaction_hash,
            "network": PLAY.caip2,
            "payer": payer,
            "amount": str(outcome.amount),
        }

    def supported(self) -> JsonObject:
        """Returns SupportedResponse."""
        extra = {"name": PLAY.asset_name, "version": PLAY.asset_version, "assetTransferMethod": "eip3009"}
        kind = {"x402Version": 2, "scheme": SCHEME, "network": PLAY.caip2, "extra": extra}
        return {"kinds": [kind], "extensions": [], "signers": {"eip155:*": []}}

    async def balance(self, address: bytes) -> JsonObject:
        """Returns what an address owns, in atomic units and dollars."""
        units = await self._ledger.read(lambda connection: records.balance(connection, address, self._opening_balance))
        return {"address": checksummed(address), "balance": str(units), "usd": units / 1_000_000}


def _failure(reason: str) -> JsonObject:
    return {"success": False, "errorReason": reason, "transaction": "", "network": PLAY.caip2}
