"""Where all coins are: what must hold after every block, whatever was done."""

from tests.doubles.akash import bank
from tests.doubles.akash.answers import Json
from tests.doubles.akash.store import ONE, UACT, UAKT, PaymentRow, State


def problems(state: State) -> list[str]:
    """Return what does not add up; empty when every coin is accounted for."""
    found = []
    for denom in (UAKT, UACT):
        held = sum(amount for (_, each), amount in state.balances.items() if each == denom)
        if held != (state.supply.get(denom) or 0):
            found.append(f"accounts hold {held}{denom}, the supply is {state.supply.get(denom)}")
        deposits = sum(
            deposit.balance for row in state.escrow.values() for deposit in row.deposits if deposit.denom == denom
        )
        earned = sum(payment.balance for payment in state.payments.values()) if denom == UACT else 0
        escrowed = bank.balance(state, bank.ESCROW, denom) * ONE
        if deposits + earned != escrowed:
            found.append(f"escrow holds {escrowed}, deposits and earnings are {deposits + earned} ({denom}, dec)")
    pending = sum(row.burned for row in state.mints.values() if row.status == "pending")
    if bank.balance(state, bank.BME, UAKT) != pending:
        found.append(f"the mint holds {bank.balance(state, bank.BME, UAKT)}uakt for {pending}uakt of pending records")
    found += [f"{key} holds {amount}" for key, amount in state.balances.items() if amount < 0]
    by_account: dict[str, list[PaymentRow]] = {}
    for payment in state.payments.values():  # not by the index: what is wrong with it must show
        by_account.setdefault(payment.aid, []).append(payment)
    for row in state.escrow.values():
        for denom, amount in row.funds:
            left = sum(deposit.balance for deposit in row.deposits if deposit.denom == denom)
            payments = by_account.get(row.xid, []) if denom == UACT else []
            debt = sum(each.unsettled for each in payments)
            if amount != left - debt:
                found.append(f"funds of {row.scope} {row.xid} are {amount}, left {left}, owed {debt}")
            paid, moved = sum(each.withdrawn + each.balance for each in payments), dict(row.transferred)[denom]
            if paid != moved:
                found.append(f"{row.scope} {row.xid} transferred {moved}, its payments got {paid}")
    return found


def summary(state: State) -> Json:
    """Return counts and sums for tests and benchmarks."""
    serving = [lease for lease in state.leases.values() if lease.serves]
    active = [row for row in state.deployments.values() if row.state == "active"]
    leased = {(lease.owner, lease.dseq) for lease in serving}
    hashes = [row.hash for row in state.deployments.values()]
    return {
        "height": state.height,
        "time_s": state.time_s,
        "deployments": len(state.deployments),
        "active_deployments": len(active),
        "active_leases": len(serving),
        "active_without_lease": sum(1 for row in active if (row.owner, row.dseq) not in leased),
        "doubled_hashes": len(hashes) - len(set(hashes)),
        "problems": problems(state),
    }
