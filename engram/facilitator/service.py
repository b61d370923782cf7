"""The facilitator's answers, without HTTP."""

from typing import final

from engram.api.facilitator import BalanceAnswer, SettleAnswer, SupportedAnswer, SupportedKind, VerifyAnswer
from engram.clock import Clock
from engram.facilitator import records, rules
from engram.facilitator.rules import MalformedRequest
from engram.ledger import Ledger
from engram.payments.keccak import checksummed
from engram.payments.networks import PLAY
from engram.payments.x402 import SCHEME


@final
class PlayFacilitator:
    """Checks and settles play money. `opening_balance` (atomic units) is what an unknown address owns."""

    def __init__(self, ledger: Ledger, clock: Clock, opening_balance: int) -> None:
        self._ledger = ledger
        self._clock = clock
        self._opening_balance = opening_balance

    async def verify(self, body: bytes) -> tuple[int, VerifyAnswer]:
        """Return the HTTP status and the answer to /verify."""
        try:
            request = rules.read_request(body)
        except MalformedRequest as malformed:
            return 400, VerifyAnswer(False, malformed.reason)
        signed = request.payload.authorization
        payer = checksummed(signed.payer)
        now = self._clock.now()
        reason = rules.refused_for_ever(request) or await self._ledger.read(
            lambda connection: records.refused(connection, signed, now, self._opening_balance)
        )
        if reason is not None:
            return 200, VerifyAnswer(False, reason, payer)
        return 200, VerifyAnswer(True, payer=payer)

    async def settle(self, body: bytes) -> tuple[int, SettleAnswer]:
        """Return the HTTP status and the answer to /settle. The same authorization again gets the same transaction."""
        try:
            request = rules.read_request(body)
        except MalformedRequest as malformed:
            return 400, SettleAnswer(success=False, error_reason=malformed.reason, network=PLAY.caip2)
        signed = request.payload.authorization
        payer = checksummed(signed.payer)
        reason = rules.refused_for_ever(request)
        if reason is not None:
            return 200, SettleAnswer(success=False, error_reason=reason, network=PLAY.caip2, payer=payer)
        now = self._clock.now()
        outcome = await self._ledger.write(
            lambda connection: records.settle(connection, signed, now, self._opening_balance)
        )
        if isinstance(outcome, str):
            return 200, SettleAnswer(success=False, error_reason=outcome, network=PLAY.caip2, payer=payer)
        return 200, SettleAnswer(
            success=True,
            transaction=outcome.transaction_hash,
            network=PLAY.caip2,
            payer=payer,
            amount=str(outcome.amount),
        )

    def supported(self) -> SupportedAnswer:
        """Return the answer to /supported."""
        extra = {"name": PLAY.asset_name, "version": PLAY.asset_version, "assetTransferMethod": "eip3009"}
        return SupportedAnswer([SupportedKind(2, SCHEME, PLAY.caip2, extra)], [], {"eip155:*": []})

    async def balance(self, address: bytes) -> BalanceAnswer:
        """Return what an address owns, in atomic units and dollars."""
        units = await self._ledger.read(lambda connection: records.balance(connection, address, self._opening_balance))
        return BalanceAnswer(checksummed(address), str(units), units / 1_000_000)
