"""What a node of the chain makes of its answers that lies on purpose: each lie changes the honest answer to a read.

| lie | |
|---|---|
| closed | every deployment and every lease has ended |
| notice | every provider has given notice, and leaves in a minute |
| dear, cheap | bids and leases cost ten times as much, or a tenth |
| poor | the account has nothing, and escrows are overdrawn |
| greedy | a deployment must deposit forty ACT |
| nobody | the account has another number |
| failed | every transaction that it is sent or asked for was refused |
| done | every transaction is on chain; those sent to it are swallowed |
| hidden | no transaction, no deployment and no lease is there |
"""

import json
import re
from collections.abc import Callable
from typing import Any, Final

from tests.doubles.akash.answers import Json
from tests.doubles.akash.serving import Answer, as_json

_TX: Final = "/cosmos/tx/v1beta1/txs/"
_ABSENT: Final = {"code": 5, "message": "tx not found", "details": []}


def told(lie: str, path: str, honest: Answer, height: int, time_s: float) -> Answer:
    """Return the answer to a GET as the liar gives it."""
    if lie == "done" and path.startswith(_TX):
        response = {"height": str(height), "txhash": path.removeprefix(_TX).upper(), "code": 0, "raw_log": ""}
        return as_json({"tx_response": response})
    if lie == "hidden" and (path.startswith(_TX) or path.endswith("/deployments/info")):
        return as_json(_ABSENT, 404)
    if honest.status != 200:
        return honest
    said: Json = json.loads(honest.body)
    change = _CHANGES.get((lie, re.sub(r"/(txs|accounts|balances)/[^/]+$", r"/\1", path)))
    if change is None:
        return honest
    change(said, time_s)
    return as_json(said)


def _each(path: str, change: Callable[[Json, float], None]) -> Callable[[Json, float], None]:
    def changed(said: Json, time_s: float) -> None:
        for row in said.get(path) or ():
            change(row, time_s)

    return changed


def _ended(info: Json, _: float) -> None:
    info["deployment"]["state"] = "closed"
    info["escrow_account"]["state"]["state"] = "closed"


def _lease_ended(row: Json, _: float) -> None:
    row["lease"] |= {"state": "closed", "reason": "lease_closed_reason_unstable"}


def _noticed(row: Json, time_s: float) -> None:
    row["lease"] |= {"state": "reclaiming", "reclamation": {"deadline": str(int(time_s) + 60)}}


def _priced(kind: str, factor: float) -> Callable[[Json, float], None]:
    def changed(row: Json, _: float) -> None:
        price = row[kind]["price"]
        price["amount"] = f"{float(price['amount']) * factor:.18f}"

    return changed


def _overdrawn(info: Json, _: float) -> None:
    for coin in info["escrow_account"]["state"]["funds"]:
        coin["amount"] = "-39000000.000000000000000000"


def _refused(said: Json, _: float) -> None:
    said["tx_response"] |= {"code": 5, "codespace": "sdk", "raw_log": "insufficient funds"}


def _set(*path: str, to: Any) -> Callable[[Json, float], None]:
    def changed(said: Json, _: float) -> None:
        *parents, last = path
        for name in parents:
            said = said[name]
        said[last] = to

    return changed


_LIST: Final = "/akash/deployment/v1beta4/deployments/list"
_INFO: Final = "/akash/deployment/v1beta4/deployments/info"
_LEASES: Final = "/akash/market/v1beta5/leases/list"
_BIDS: Final = "/akash/market/v1beta5/bids/list"
_DEPOSITS: Final = [{"denom": each, "amount": "40000000"} for each in ("uakt", "uact")]
_CHANGES: Final[dict[tuple[str, str], Callable[[Json, float], None]]] = {
    ("closed", _INFO): _ended,
    ("closed", _LIST): _set("deployments", to=[]),
    ("closed", _LEASES): _each("leases", _lease_ended),
    ("notice", _LEASES): _each("leases", _noticed),
    ("dear", _LEASES): _each("leases", _priced("lease", 10.0)),
    ("cheap", _LEASES): _each("leases", _priced("lease", 0.1)),
    ("cheap", _BIDS): _each("bids", _priced("bid", 0.1)),
    ("poor", "/cosmos/bank/v1beta1/balances"): _set("balances", to=[]),
    ("poor", _INFO): _overdrawn,
    ("greedy", "/akash/deployment/v1beta4/params"): _set("params", "min_deposits", to=_DEPOSITS),
    ("nobody", "/cosmos/auth/v1beta1/accounts"): _set("account", "account_number", to="999"),
    ("failed", "/cosmos/tx/v1beta1/txs"): _refused,
    ("hidden", _LIST): _set("deployments", to=[]),
    ("hidden", _LEASES): _set("leases", to=[]),
}
LIES: Final = tuple(sorted({lie for lie, _ in _CHANGES} | {"done"}))
