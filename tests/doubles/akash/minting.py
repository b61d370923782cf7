"""Minting uact by burning uakt: a request waits for the epoch, is tried a few times, then canceled and refunded."""

from typing import Final

from msgspec.structs import replace

from tests.doubles.akash import bank
from tests.doubles.akash.errors import BME_AMOUNT, BME_DENOM, CIRCUIT_BREAKER
from tests.doubles.akash.messages import LedgerRecordId, MintAct, MintActResponse
from tests.doubles.akash.store import UACT, UAKT, MintRow, State

HALTED: Final = ("mint_status_halt_cr", "mint_status_halt_oracle")
_PENDING: Final = 1


def request(state: State, message: MintAct) -> MintActResponse:
    """Take the coins to burn and note the record; that it was noted proves nothing. Raises Refused."""
    coin = message.coins_to_burn
    if coin is None or coin.denom != UAKT or message.to != message.owner:
        raise BME_DENOM.error()
    if not coin.amount.isdigit() or int(coin.amount) == 0:
        raise BME_AMOUNT.error()
    if state.mint_status in HALTED:
        raise CIRCUIT_BREAKER.error()
    bank.send(state, message.owner, bank.BME, UAKT, int(coin.amount))
    sequence = 1 + sum(1 for row in state.mints.values() if row.height == state.height)
    row = MintRow(message.owner, message.to, int(coin.amount), state.height, sequence)
    state.mints.put((row.height, row.sequence), row)
    return MintActResponse(LedgerRecordId(UAKT, UACT, row.owner, row.height, row.sequence), _PENDING)


def end_block(state: State) -> None:
    """At each epoch: execute what is pending, unless minting is halted."""
    if state.height % state.params.min_epoch_blocks or state.mint_status in HALTED:
        return
    for key, row in state.mints.items():
        if row.status == "pending":
            state.mints.put(key, _executed(state, row))


def _executed(state: State, row: MintRow) -> MintRow:
    minted = int(row.burned * state.params.akt_usd)
    if minted < state.params.min_mint:
        if row.tries + 1 < state.params.mint_tries:
            return replace(row, tries=row.tries + 1)
        bank.send(state, bank.BME, row.owner, UAKT, row.burned)
        return replace(row, tries=row.tries + 1, status="canceled")
    spread = minted * state.params.mint_spread_bps // 10_000
    bank.burn(state, bank.BME, UAKT, row.burned)
    bank.mint(state, bank.BME, UACT, minted)
    bank.send(state, bank.BME, row.to, UACT, minted - spread)
    return replace(row, status="executed", minted=minted, spread=spread)
