"""A ledger full of payments whose outcome is not known, on a chain that knows it."""

import http.client
import json
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Connection

from bench.support.paying import Wallet
from engram.ledger import LEDGER_FILE, open_inline, owners
from engram.ledger.sql import OWNER
from engram.payments import records, statements, x402
from engram.payments.keccak import keccak256
from engram.payments.model import Authorization, Payment, PaymentKind, PaymentState, Requirements
from engram.sessions import Session, SessionState, TierName
from engram.sessions import records as session_records
from tests.evm.chain import TOKEN, Chain

Signed = tuple[Authorization, bytes]
WALLETS: Final = 50
PAID_SHARE: Final = 0.25
"""Settled on the chain while the answer was lost."""
OPEN_SHARE: Final = 0.02
"""Never submitted and still good: the identical payment is sent again. The rest expired unused."""
BLOCK: Final = 150
"""Transactions in a block."""
_TRANSFER: Final = keccak256(
    b"transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)"
)[:4]


class Filled(msgspec.Struct, frozen=True):
    """How many rows of each truth were written."""

    paid: int
    open: int
    expired: int


def fill(folder: Path, chain: Chain, count: int, requirements: Requirements) -> Filled:
    """Write `count` unknown payments, each of a phone of its own, into a new ledger in `folder`."""
    paid, still_open = round(count * PAID_SHARE), round(count * OPEN_SHARE)
    offer: Any = x402.requirements_json(requirements)
    wallets = [Wallet() for _ in range(WALLETS)]
    for wallet in wallets:
        chain.mint(wallet.address, count * requirements.amount)
    now = int(time.time())
    signed = [
        wallets[n % WALLETS].authorize(offer, now + 3_600 if n < paid + still_open else now - 600) for n in range(count)
    ]
    submit(chain, signed[:paid])
    chain.mine(3)
    ledger = open_inline(folder / LEDGER_FILE)

    def write(connection: Connection) -> None:
        for number, (authorization, signature) in enumerate(signed):
            payment = _payment(number, authorization, signature, requirements, now - 700.0)
            statements.INSERT_PAYMENT.change(connection, records.columns_of(payment) | {OWNER: owners.me(connection)})
            session_records.insert_session(connection, _session(payment))

    ledger.write_now(write)
    ledger.close()
    return Filled(paid, still_open, count - paid - still_open)


def submit(chain: Chain, signed: Sequence[Signed]) -> None:
    """Use the authorizations on the chain, many in a block."""
    chain.automine(False)
    first = int(chain.rpc("eth_getTransactionCount", chain.funded, "latest"), 16)
    for begin in range(0, len(signed), BLOCK):
        orders = [
            {"from": chain.funded, "to": TOKEN, "data": _use(*one), "gas": hex(190_000), "nonce": hex(first + number)}
            for number, one in enumerate(signed[begin : begin + BLOCK], begin)
        ]
        _batch(chain, [("eth_sendTransaction", [order]) for order in orders])
        chain.mine()
    chain.automine(True)


def _payment(
    number: int, authorization: Authorization, signature: bytes, requirements: Requirements, at: float
) -> Payment:
    session_id = str(uuid.UUID(int=(number << 64) | 1))
    return Payment(
        id=str(uuid.UUID(int=(number << 64) | 2)),
        state=PaymentState.UNKNOWN,
        kind=PaymentKind.SESSION,
        session_id=session_id,
        controller=keccak256(session_id.encode()),
        request_hash=keccak256(b"request " + session_id.encode()),
        network=requirements.network.caip2,
        asset=requirements.network.asset,
        payer=authorization.payer,
        nonce=authorization.nonce,
        pay_to=authorization.pay_to,
        amount=authorization.value,
        valid_after=authorization.valid_after,
        valid_before=authorization.valid_before,
        payload=msgspec.json.encode(x402.payload_json(authorization, signature, requirements)),
        requirements=msgspec.json.encode(x402.requirements_json(requirements)),
        seconds=3_600.0,
        client_address="",
        created_at=at,
        updated_at=at,
        next_attempt_at=at,
        reason="Interrupted",
        attempts=1,
    )


def _session(payment: Payment) -> Session:
    return Session(
        id=payment.session_id,
        controller=payment.controller,
        state=SessionState.PAYMENT_PENDING,
        tier=TierName.LITE,
        paid_s=payment.seconds,
        amount_usd_micros=payment.amount,
        network=payment.network,
        payment_id=payment.id,
        created_at=payment.created_at,
    )


def _use(authorization: Authorization, signature: bytes) -> str:
    words = (
        bytes(12) + authorization.payer,
        bytes(12) + authorization.pay_to,
        authorization.value.to_bytes(32, "big"),
        authorization.valid_after.to_bytes(32, "big"),
        authorization.valid_before.to_bytes(32, "big"),
        authorization.nonce,
        signature[64:].rjust(32, b"\0"),
        signature[:32],
        signature[32:64],
    )
    return "0x" + (_TRANSFER + b"".join(words)).hex()


def _batch(chain: Chain, calls: Sequence[tuple[str, list[object]]]) -> None:
    asked = [
        {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        for number, (method, params) in enumerate(calls)
    ]
    connection = http.client.HTTPConnection("127.0.0.1", chain.port, timeout=60)
    try:
        connection.request("POST", "/", json.dumps(asked), {"content-type": "application/json"})
        answers = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    refused = [answer["error"] for answer in answers if "error" in answer]
    assert not refused, refused[0]
