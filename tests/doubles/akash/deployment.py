"""Deployments and their groups: what a create must be, in the order in which the chain looks."""

from typing import Final

from msgspec.structs import replace

from tests.doubles.akash import addresses, escrow, market
from tests.doubles.akash.errors import (
    DEPLOYMENT_CLOSED,
    DEPLOYMENT_DEPOSIT,
    DEPLOYMENT_EXISTS,
    DEPLOYMENT_NOT_FOUND,
    DUPLICATE_GROUP_NAME,
    EMPTY_HASH,
    INVALID_DEPLOYMENT_ID,
    INVALID_GROUPS,
    INVALID_HASH,
    INVALID_PRICE,
    INVALID_RECLAMATION,
)
from tests.doubles.akash.messages import (
    AccountDeposit,
    Amount,
    CloseDeployment,
    CreateDeployment,
    DeploymentId,
    GroupSpec,
    Reclamation,
    ResourceUnit,
    UpdateDeployment,
)
from tests.doubles.akash.store import ONE, UACT, UAKT, DeploymentRow, EscrowRow, GroupRow, State

MAX_CPU_MILLI: Final = 384_000
MAX_MEMORY: Final = 2 * 1024**4
MAX_STORAGE: Final = 32 * 1024**4
MAX_COUNT: Final = 50
MAX_GROUPS: Final = 20
MAX_UNIT_PRICE: Final = 10_000_000 * ONE
_HASH_BYTES: Final = 32


def check_basic(message: CreateDeployment | CloseDeployment | UpdateDeployment) -> None:
    """Refuse what a message alone shows to be wrong, before anything else is looked at."""
    checked_id(message.id)
    if isinstance(message, CloseDeployment):
        return
    if not message.hash:
        raise EMPTY_HASH.error()
    if len(message.hash) != _HASH_BYTES:
        raise INVALID_HASH.error()
    if isinstance(message, UpdateDeployment):
        return
    if not message.groups:
        raise INVALID_GROUPS.error()
    if message.deposit is None or message.deposit.amount is None or not message.deposit.amount.amount.isdigit():
        raise DEPLOYMENT_DEPOSIT.error()
    for group in message.groups:
        for unit in group.resources:
            if unit.price is None:
                raise INVALID_PRICE.error()
            if unit.price.denom != message.deposit.amount.denom:
                raise DEPLOYMENT_DEPOSIT.error(
                    f"Mismatched denominations ({message.deposit.amount.denom} != {unit.price.denom})"
                )


def checked_id(id_: DeploymentId | None) -> DeploymentId:
    """Return the id. Raises Refused for an address that is none, or without a number."""
    if id_ is None or not addresses.is_valid(id_.owner) or id_.dseq <= 0:
        raise INVALID_DEPLOYMENT_ID.error()
    return id_


def create(state: State, message: CreateDeployment) -> None:
    """Make deployment, groups, orders and escrow account. Raises Refused."""
    id_ = checked_id(message.id)
    assert message.deposit is not None
    assert message.deposit.amount is not None
    if state.deployments.get((id_.owner, id_.dseq)) is not None:
        raise DEPLOYMENT_EXISTS.error()
    amount = int(message.deposit.amount.amount)
    if amount < state.params.min_deposit:
        raise DEPLOYMENT_DEPOSIT.error(f"Deposit too low - {amount} < {state.params.min_deposit}")
    if message.deposit.amount.denom == UAKT:
        raise DEPLOYMENT_DEPOSIT.error()
    window = _window(state, message.reclamation)
    _check_groups(message.groups)
    if any(unit.price is None or unit.price.denom != UACT for unit in message.groups[0].resources):
        raise INVALID_PRICE.error()
    deposits = escrow.authorize(state, id_.owner, message.deposit)
    row = DeploymentRow(id_.owner, id_.dseq, message.hash, state.height, reclamation_s=window)
    state.deployments.put((id_.owner, id_.dseq), row)
    for index, spec in enumerate(message.groups):
        group = GroupRow(id_.owner, id_.dseq, index + 1, spec, state.height)
        state.groups.put((id_.owner, id_.dseq, group.gseq), group)
        market.create_order(state, group, window)
    escrow.create(state, "deployment", f"{id_.owner}/{id_.dseq}", id_.owner, deposits)


def _window(state: State, reclamation: Reclamation | None) -> int | None:
    if reclamation is None or reclamation.min_window is None:
        return None
    window = reclamation.min_window.seconds
    if not state.params.min_reclamation_s <= window <= state.params.max_reclamation_s:
        raise INVALID_RECLAMATION.error("min window is outside governance bounds")
    return window


def _check_groups(groups: tuple[GroupSpec, ...]) -> None:
    if len(groups) > MAX_GROUPS:
        raise INVALID_GROUPS.error("too many groups")
    names: set[str] = set()
    for group in groups:
        if not group.name:
            raise INVALID_GROUPS.error("empty group spec name denied")
        if group.name in names:
            raise DUPLICATE_GROUP_NAME.error()
        names.add(group.name)
        if not group.resources:
            raise INVALID_GROUPS.error(f"group {group.name} has no resources")
        ids = [unit.resource.id for unit in group.resources if unit.resource]
        if len(set(ids)) != len(group.resources) or 0 in ids:
            raise INVALID_GROUPS.error("group resources ids must be unique and not zero")
        for unit in group.resources:
            _check_unit(group.name, unit)


def _check_unit(group: str, unit: ResourceUnit) -> None:
    resource = unit.resource
    if resource is None or resource.cpu is None or resource.memory is None or resource.gpu is None:
        raise INVALID_GROUPS.error(f"group {group}: a resource lacks cpu, memory or gpu")
    bounds = [
        ("cpu", number(resource.cpu.units), 10, MAX_CPU_MILLI),
        ("memory", number(resource.memory.quantity), 1024**2, MAX_MEMORY),
        ("gpu", number(resource.gpu.units), 0, 24),
        ("count", unit.count, 1, MAX_COUNT),
        *(("storage", number(each.quantity), 5 * 1024**2, MAX_STORAGE) for each in resource.storage),
        ("price", int(unit.price.amount) if unit.price and unit.price.amount.isdigit() else 0, 1, MAX_UNIT_PRICE),
    ]
    if not resource.storage:
        raise INVALID_GROUPS.error(f"group {group}: invalid unit storage: no storage")
    for name, value, least, most in bounds:
        if not least <= value <= most:
            raise INVALID_GROUPS.error(f"group {group}: invalid unit {name} ({least} > {value} > {most} fails)")


def number(amount: Amount | None) -> int:
    """Return the decimal digits of a resource as a number; -1 for what is none."""
    text = amount.val.decode("ascii", "replace") if amount else ""
    return int(text) if text.isdigit() else -1


def update(state: State, message: UpdateDeployment) -> None:
    row = _active(state, checked_id(message.id))
    if row.hash == message.hash:
        raise INVALID_HASH.error()
    state.deployments.put((row.owner, row.dseq), replace(row, hash=message.hash))


def close(state: State, message: CloseDeployment) -> None:
    """Close the escrow account; the rest follows from that."""
    row = _active(state, checked_id(message.id))
    escrow.close(state, "deployment", f"{row.owner}/{row.dseq}")


def _active(state: State, id_: DeploymentId) -> DeploymentRow:
    row = state.deployments.get((id_.owner, id_.dseq))
    if row is None:
        raise DEPLOYMENT_NOT_FOUND.error()
    if row.state != "active":
        raise DEPLOYMENT_CLOSED.error()
    return row


def deposit(state: State, message: AccountDeposit) -> None:
    """Add to the escrow of a deployment. Raises Refused."""
    assert message.id is not None
    assert message.deposit is not None
    xid = message.id.xid
    owner, _, dseq = xid.partition("/")
    if message.id.scope != 1 or not dseq.isdigit() or state.deployments.get((owner, int(dseq))) is None:
        raise DEPLOYMENT_NOT_FOUND.error()
    escrow.deposit(state, "deployment", xid, escrow.authorize(state, message.signer, message.deposit))


def on_account_closed(state: State, row: EscrowRow) -> None:
    """Close the deployment whose escrow account ended, and all that belongs to it."""
    if row.scope != "deployment":
        return
    owner, dseq = row.xid.split("/")
    deployment = state.deployments.get((owner, int(dseq)))
    if deployment is None or deployment.state != "active":
        return
    state.deployments.put((owner, int(dseq)), replace(deployment, state="closed"))
    ended = "insufficient_funds" if row.state == "overdrawn" else "closed"
    gseq = 1
    while (group := state.groups.get((owner, int(dseq), gseq))) is not None:
        if group.state in ("open", "paused"):
            state.groups.put((owner, int(dseq), gseq), replace(group, state=ended))
            market.on_group_closed(state, group, ended)
        gseq += 1
