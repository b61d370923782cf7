"""What the chain's state looks like as JSON: 64-bit numbers are strings, bytes are base64, decimals have 18 places."""

import base64
from datetime import UTC, datetime
from typing import Any

from tests.doubles.akash.messages import Amount, Attribute, GroupSpec, Resources
from tests.doubles.akash.store import (
    ONE,
    UACT,
    UAKT,
    BidRow,
    DeploymentRow,
    EscrowRow,
    GroupRow,
    LeaseRow,
    MintRow,
    PaymentRow,
    State,
    dec,
)

Json = dict[str, Any]
_KINDS = ("SHARED_HTTP", "RANDOM_PORT", "LEASED_IP")


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def rfc3339(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def page(name: str, rows: list[Json], query: dict[str, str]) -> Json:
    """Return a page of rows, by key or offset as the query names. Raises ValueError for both."""
    limit = int(query.get("pagination.limit") or 100)
    key, offset = query.get("pagination.key", ""), query.get("pagination.offset", "")
    if key and offset:
        raise ValueError("invalid request, either offset or key is expected, got both")
    start = int(base64.b64decode(key)) if key else int(offset or 0)
    end = start + limit
    following = b64(str(end).encode()) if end < len(rows) else None
    return {name: rows[start:end], "pagination": {"next_key": following, "total": str(len(rows))}}


def deployment(state: State, row: DeploymentRow) -> Json:
    escrow_row = state.escrow.get(("deployment", f"{row.owner}/{row.dseq}"))
    assert escrow_row is not None
    groups, gseq = [], 1
    while (group_row := state.groups.get((row.owner, row.dseq, gseq))) is not None:
        groups.append(group(group_row))
        gseq += 1
    about = {
        "id": {"owner": row.owner, "dseq": str(row.dseq)},
        "state": row.state,
        "hash": b64(row.hash),
        "created_at": str(row.created_at),
    }
    if row.reclamation_s is not None:
        about["reclamation"] = {"min_window": f"{row.reclamation_s}s"}
    return {"deployment": about, "groups": groups, "escrow_account": escrow(escrow_row)}


def group(row: GroupRow) -> Json:
    return {
        "id": {"owner": row.owner, "dseq": str(row.dseq), "gseq": row.gseq},
        "state": row.state,
        "group_spec": group_spec(row.spec),
        "created_at": str(row.created_at),
    }


def group_spec(spec: GroupSpec) -> Json:
    wanted = spec.requirements
    signed = wanted.signed_by if wanted else None
    return {
        "name": spec.name,
        "requirements": {
            "signed_by": {
                "all_of": list(signed.all_of) if signed else [],
                "any_of": list(signed.any_of) if signed else [],
            },
            "attributes": _attributes(wanted.attributes if wanted else ()),
        },
        "resources": [
            {
                "resource": resources(unit.resource),
                "count": unit.count,
                "price": {"denom": unit.price.denom, "amount": dec(int(unit.price.amount))} if unit.price else None,
            }
            for unit in spec.resources
        ],
    }


def resources(found: Resources | None) -> Json:
    assert found is not None
    assert found.cpu is not None
    assert found.memory is not None
    assert found.gpu is not None
    return {
        "id": found.id,
        "cpu": {"units": _amount(found.cpu.units), "attributes": _attributes(found.cpu.attributes)},
        "memory": {"quantity": _amount(found.memory.quantity), "attributes": _attributes(found.memory.attributes)},
        "storage": [
            {"name": each.name, "quantity": _amount(each.quantity), "attributes": _attributes(each.attributes)}
            for each in found.storage
        ],
        "gpu": {"units": _amount(found.gpu.units), "attributes": _attributes(found.gpu.attributes)},
        "endpoints": [{"kind": _KINDS[each.kind], "sequence_number": each.sequence_number} for each in found.endpoints],
    }


def _amount(amount: Amount | None) -> Json:
    return {"val": amount.val.decode() if amount else "0"}


def _attributes(found: tuple[Attribute, ...]) -> list[Json]:
    return [{"key": each.key, "value": each.value} for each in found]


def escrow(row: EscrowRow) -> Json:
    return {
        "id": {"scope": row.scope, "xid": row.xid},
        "state": {
            "owner": row.owner,
            "state": row.state,
            "transferred": [_dec_coin(denom, amount) for denom, amount in row.transferred],
            "settled_at": str(row.settled_at),
            "funds": [_dec_coin(denom, amount) for denom, amount in row.funds],
            "deposits": [
                {
                    "owner": each.owner,
                    "height": str(each.height),
                    "source": "balance",
                    "balance": _dec_coin(each.denom, each.balance),
                }
                for each in row.deposits
            ],
        },
    }


def _dec_coin(denom: str, amount: int) -> Json:
    return {"denom": denom, "amount": dec(amount)}


def _lease_id(row: BidRow | LeaseRow) -> Json:
    return {
        "owner": row.owner,
        "dseq": str(row.dseq),
        "gseq": row.gseq,
        "oseq": row.oseq,
        "provider": row.provider,
        "bseq": 0,
    }


def bid(state: State, row: BidRow) -> Json:
    group_row = state.groups.get((row.owner, row.dseq, row.gseq))
    escrow_row = state.escrow.get(("bid", row.xid))
    assert group_row is not None
    assert escrow_row is not None
    about = {
        "id": _lease_id(row),
        "state": row.state,
        "price": _dec_coin(UACT, row.price),
        "created_at": str(row.created_at),
        "resources_offer": [
            {"resources": resources(unit.resource), "count": unit.count} for unit in group_row.spec.resources
        ],
    }
    if row.reclamation_s is not None:
        about["reclamation_window"] = f"{row.reclamation_s}s"
    return {"bid": about, "escrow_account": escrow(escrow_row)}


def lease(state: State, row: LeaseRow) -> Json:
    payment = state.payments.get((f"{row.owner}/{row.dseq}", f"{row.gseq}/{row.oseq}/{row.provider}"))
    assert payment is not None
    about = {
        "id": _lease_id(row),
        "state": row.state,
        "price": _dec_coin(UACT, row.price),
        "created_at": str(row.created_at),
        "closed_on": str(row.closed_on),
        "reason": row.reason,
    }
    if row.window_s is not None:
        started = row.reclaim_started_s
        about["reclamation"] = {
            "window": f"{row.window_s}s",
            "started_at": str(int(started)) if started is not None else "0",
            "deadline": str(int(started) + row.window_s) if started is not None else "0",
            "reason": row.reclaim_reason or "lease_closed_invalid",
        }
    return {"lease": about, "escrow_payment": _payment(row, payment)}


def _payment(row: LeaseRow, payment: PaymentRow) -> Json:
    return {
        "id": {"aid": {"scope": "deployment", "xid": payment.aid}, "xid": payment.xid},
        "state": {
            "owner": payment.owner,
            "state": payment.state,
            "rate": _dec_coin(UACT, payment.rate),
            "balance": _dec_coin(UACT, payment.balance),
            "unsettled": _dec_coin(UACT, payment.unsettled),
            "withdrawn": {"denom": UACT, "amount": str(payment.withdrawn // ONE)},
        },
    }


def mint(state: State, row: MintRow) -> Json:
    about: Json = {
        "id": {
            "denom": UAKT,
            "to_denom": UACT,
            "source": row.owner,
            "height": str(row.height),
            "sequence": str(row.sequence),
        },
        "status": f"ledger_record_status_{row.status}",
    }
    burned = {"denom": UAKT, "amount": str(row.burned)}
    if row.status == "executed":
        price = dec(round(state.params.akt_usd * 10**6) * 10**12)
        about["executed_record"] = {
            "burned_from": row.owner,
            "minted_to": row.to,
            "burner": "bme",
            "minter": "bme",
            "burned": {"coin": burned, "price": price},
            "minted": {"coin": {"denom": UACT, "amount": str(row.minted)}, "price": dec(ONE)},
            "spread": {"denom": UACT, "amount": str(row.spread)},
            "remint_credit_issued": None,
            "remint_credit_accrued": None,
        }
    else:
        record: Json = {"owner": row.owner, "to": row.to, "coins_to_burn": burned, "denom_to_mint": UACT}
        about[f"{row.status}_record"] = record | ({"cancel_reason": "unknown"} if row.status == "canceled" else {})
    return about
