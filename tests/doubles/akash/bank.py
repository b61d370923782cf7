"""Coins of accounts and modules. Coins are made by genesis and minting alone, and burned by minting alone."""

from tests.doubles.akash import addresses
from tests.doubles.akash.errors import INSUFFICIENT_FUNDS
from tests.doubles.akash.store import AccountRow, State

ESCROW = addresses.of_name("module/escrow")
FEES = addresses.of_name("module/fee_collector")
BME = addresses.of_name("module/bme")


def balance(state: State, address: str, denom: str) -> int:
    return state.balances.get((address, denom)) or 0


def mint(state: State, address: str, denom: str, amount: int) -> None:
    """Make coins."""
    state.supply.put(denom, (state.supply.get(denom) or 0) + amount)
    _add(state, address, denom, amount)


def burn(state: State, address: str, denom: str, amount: int) -> None:
    """Destroy coins. Raises Refused when there are not so many."""
    _take(state, address, denom, amount)
    state.supply.put(denom, (state.supply.get(denom) or 0) - amount)


def send(state: State, source: str, target: str, denom: str, amount: int) -> None:
    """Move coins. Raises Refused when there are not so many."""
    if amount:
        _take(state, source, denom, amount)
        _add(state, target, denom, amount)


def _take(state: State, address: str, denom: str, amount: int) -> None:
    held = balance(state, address, denom)
    if amount < 0 or held < amount:
        raise INSUFFICIENT_FUNDS.error(f"spendable balance {held}{denom} is smaller than {amount}{denom}")
    state.balances.put((address, denom), held - amount)


def _add(state: State, address: str, denom: str, amount: int) -> None:
    if state.accounts.get(address) is None:
        state.accounts.put(address, AccountRow(address, len(state.accounts) + 1))
    state.balances.put((address, denom), balance(state, address, denom) + amount)
