"""A facilitator in memory with fault switches, held to the contract in tests/payments/test_facilitators.py."""

from collections import deque
from collections.abc import Callable
from typing import Literal

import trio

from engram.clock import Clock
from engram.facilitator import rules as play
from engram.payments import rules
from engram.payments.facilitator import request_body
from engram.payments.model import Authorization, Transferable
from engram.payments.outcomes import (
    Invalid,
    NotSent,
    Pending,
    Rejected,
    Settled,
    Settlement,
    Unavailable,
    Unknown,
    Valid,
    Verification,
)

Fault = Literal[
    "not_sent",  # nothing arrives
    "lost_before",  # it arrives, nothing is done, no answer
    "lost_after",  # it is done, no answer
    "pending_after",  # it is done, and called pending
    "no_proof_after",  # it is done, and the success names no transaction
    "slow",  # as usual, after 5 s
    "hang",  # as usual, after an hour
    "crash",  # a bug of ours in the adapter
]


class FakeFacilitator:
    """Settles each authorization once. `balance` is what every payer owns; `faults` are used up call by call."""

    def __init__(self, clock: Clock, balance: int = 1_000_000_000) -> None:
        self._clock = clock
        self._opening = balance
        self.moved: dict[bytes, int] = {}
        """Atomic units paid by each payer."""
        self.settled: dict[tuple[bytes, bytes], Authorization] = {}
        self.transfers = 0
        self.verifications = 0
        self.settlements = 0
        self.verify_faults: deque[Fault] = deque()
        self.settle_faults: deque[Fault] = deque()
        self.hanging_nonces: set[bytes] = set()
        self.crashing_nonces: set[bytes] = set()
        self.settle_called = trio.Event()
        self.passing: Callable[[str], None] = lambda point: None
        """Called at verify, settle:before and settle:after (the effect), so that a test may stop the world there."""

    async def verify(self, transfer: Transferable) -> Verification:
        await trio.lowlevel.checkpoint()
        self.verifications += 1
        await self._pass("verify")
        if transfer.nonce in self.crashing_nonces:
            raise ZeroDivisionError("injected")
        fault = self.verify_faults.popleft() if self.verify_faults else None
        match fault:
            case "not_sent" | "lost_before" | "lost_after":
                return Unavailable(fault)
            case "crash":
                raise ZeroDivisionError("injected")
            case "slow":
                await trio.sleep(5)
            case "hang":
                await trio.sleep(3600)
            case _:
                pass
        request = play.read_request(request_body(transfer))
        signed = request.payload.authorization
        reason = play.refused_for_ever(request)
        if reason is None and (signed.payer, signed.nonce) in self.settled:
            reason = play.NONCE_USED
        return Invalid(reason) if reason else (self._refused(signed) or Valid())

    async def settle(self, transfer: Transferable) -> Settlement:
        await trio.lowlevel.checkpoint()
        self.settlements += 1
        self.settle_called.set()
        if transfer.nonce in self.hanging_nonces:
            await trio.sleep_forever()
        fault = self.settle_faults.popleft() if self.settle_faults else None
        match fault:
            case "not_sent":
                return NotSent("injected")
            case "lost_before":
                return Unknown("http_500")
            case "crash":
                raise ZeroDivisionError("injected")
            case "slow":
                await trio.sleep(5)
            case "hang":
                await trio.sleep(3600)
            case _:
                pass
        await self._pass("settle:before")
        outcome = self._settle(transfer)
        await self._pass("settle:after")
        if not isinstance(outcome, Settled):
            return outcome
        match fault:
            case "lost_after":
                return Unknown("http_504")
            case "pending_after":
                return Pending(outcome.transaction)
            case "no_proof_after":
                return Unknown("success_without_proof")
            case _:
                return outcome

    async def _pass(self, point: str) -> None:
        self.passing(point)
        await trio.lowlevel.checkpoint()

    def _settle(self, transfer: Transferable) -> Settlement:
        request = play.read_request(request_body(transfer))
        signed = request.payload.authorization
        reason = play.refused_for_ever(request)
        if reason is not None:
            return Rejected(reason)
        key = (signed.payer, signed.nonce)
        if key not in self.settled:
            refused = self._refused(signed)
            if refused is not None:
                return Rejected(refused.reason) if refused.reason in rules.BEFORE_BROADCAST else Unknown(refused.reason)
            self.settled[key] = signed
            self.transfers += 1
            self.moved[signed.payer] = self.moved.get(signed.payer, 0) + signed.value
        elif (self.settled[key].pay_to, self.settled[key].value) != (signed.pay_to, signed.value):
            return Unknown(play.NONCE_USED)
        return Settled(play.transaction_hash(signed))

    def _refused(self, signed: Authorization) -> Invalid | None:
        reason = play.refused_now(signed, self._clock.now())
        if reason is None and self._opening - self.moved.get(signed.payer, 0) < signed.value:
            reason = play.NO_FUNDS
        return Invalid(reason) if reason else None
