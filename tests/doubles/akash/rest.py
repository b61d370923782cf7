"""The REST surface of one node of the chain (grpc-gateway)."""

import base64
import binascii
import json
from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from tests.doubles.akash import answers, lies
from tests.doubles.akash.answers import Json
from tests.doubles.akash.chain import Chain, Included
from tests.doubles.akash.errors import INSUFFICIENT_FUNDS, INVALID_REQUEST, TX_DECODE, Refused
from tests.doubles.akash.faults import ChainFaults, NodeFaults, used
from tests.doubles.akash.minting import HALTED
from tests.doubles.akash.provider import Provider
from tests.doubles.akash.serving import GARBAGE, HUGE, Answer, Cut, Hang, Request, as_json
from tests.doubles.akash.store import AccountRow, State, dec
from tests.doubles.akash.transaction import Transaction, decode

_INVALID, _NOT_FOUND, _UNKNOWN, _UNIMPLEMENTED = 3, 5, 2, 12
"""gRPC codes, as the gateway shows them."""
_HEX: Final = frozenset("0123456789ABCDEF")


def failed(status: int, code: int, message: str) -> Answer:
    return as_json({"code": code, "message": message, "details": []}, status)


class Node:
    """One endpoint of the chain: its own view, its own faults."""

    def __init__(self, chain: Chain, providers: list[Provider], faults: NodeFaults, chain_faults: ChainFaults) -> None:
        self._chain = chain
        self._providers = {each.address: each for each in providers}
        self._faults = faults
        self._chain_faults = chain_faults
        self._frozen: State | None = None
        self.requests: dict[str, int] = {}
        """How often each path was requested; the last segment of those that name something is left out."""
        self.sent: list[str] = []
        """Hashes of the transactions that were sent to this node, in their order."""

    @property
    def _state(self) -> State:
        """What this node knows: everything, or what it knew when it stopped following."""
        if not self._faults.stale:
            self._frozen = None
            return self._chain.state
        if self._frozen is None:
            self._frozen = self._chain.state.snapshot()
        return self._frozen

    async def handle(self, request: Request) -> Answer:
        """Answer one request."""
        if self._faults.down:
            raise Cut
        if used(self._faults, "error_500"):
            return failed(500, _UNKNOWN, "injected")
        if used(self._faults, "garbage"):
            return GARBAGE
        if used(self._faults, "huge"):
            return HUGE
        path = request.path
        name = next((known for known in _NAMED if path.startswith(known)), path)
        self.requests[name] = self.requests.get(name, 0) + 1
        if path.startswith(self._faults.missing) if self._faults.missing else False:
            return failed(501, _UNIMPLEMENTED, "Not Implemented")
        try:
            if request.method == "POST":
                return self._post(path, request.body)
            answer = self._get(path, request.query)
            if self._faults.lie:
                return lies.told(self._faults.lie, path, answer, self._state.height, self._state.time_s)
            return answer
        except (ValueError, KeyError, TypeError, binascii.Error) as error:
            return failed(400, _INVALID, str(error))

    # --------------------------------------------------------------------------------------------------- sending

    def _post(self, path: str, body: bytes) -> Answer:
        sent = json.loads(body)
        if path not in ("/cosmos/tx/v1beta1/simulate", "/cosmos/tx/v1beta1/txs") or not isinstance(sent, dict):
            return failed(501, _UNIMPLEMENTED, "Not Implemented")
        raw = base64.b64decode(sent["tx_bytes"], validate=True)
        if path.endswith("simulate"):
            return self._simulate(raw)
        if sent.get("mode") != "BROADCAST_MODE_SYNC":
            return failed(400, _INVALID, "unsupported broadcast mode; supported modes are sync and async")
        return self._broadcast(raw)

    def _simulate(self, raw: bytes) -> Answer:
        try:
            self._refuse_unordered(decode(raw))
            gas = self._chain.simulate(raw)
        except Refused as refused:
            if refused.code == TX_DECODE.code and refused.codespace == "sdk":
                return failed(400, _INVALID, str(refused))
            return failed(500, _UNKNOWN, f"{refused} with gas used: '0'")
        return as_json(
            {
                "gas_info": {"gas_wanted": "0", "gas_used": str(gas)},
                "result": {"data": "", "log": "", "events": [], "msg_responses": []},
            }
        )

    def _broadcast(self, raw: bytes) -> Answer:
        tx_hash, refused = "", None
        try:
            tx = decode(raw)
            tx_hash = tx.hash
            self.sent.append(tx_hash)
            self._refuse_unordered(tx)
            lost = self._faults.stale or self._faults.syncing or used(self._faults, "broadcast_lost")
            lost = lost or self._faults.lie == "done"
            if not lost:
                self._let_another_write(tx)
                self._chain.check(raw)
            if self._faults.lie == "failed":  # it was taken, as another node will show
                raise INSUFFICIENT_FUNDS.error("")
        except Refused as error:
            refused = error
        if used(self._faults, "broadcast_then_hang"):
            raise Hang
        if used(self._faults, "broadcast_then_500"):
            return failed(500, _UNKNOWN, "injected after the broadcast")
        code, codespace, log = (refused.code, refused.codespace, str(refused)) if refused else (0, "", "")
        return as_json({"tx_response": _response(tx_hash, code=code, codespace=codespace, log=log)})

    def _refuse_unordered(self, tx: Transaction) -> None:
        if self._faults.no_unordered and tx.body.unordered:
            raise INVALID_REQUEST.error("unordered transactions are not enabled")

    def _let_another_write(self, tx: Transaction) -> None:
        account = self._chain.state.accounts.get(tx.signer)
        if not tx.body.unordered and account and used(self._chain_faults, "second_writer"):
            self._chain.state.accounts.put(tx.signer, replace(account, sequence=account.sequence + 1))

    # --------------------------------------------------------------------------------------------------- reading

    def _get(self, path: str, query: dict[str, str]) -> Answer:
        for prefix, answer in self._by_prefix().items():
            if path.startswith(prefix) and path != prefix:
                return answer(path.removeprefix(prefix))
        reading = self._by_path().get(path)
        return reading(query) if reading else failed(501, _UNIMPLEMENTED, "Not Implemented")

    def _by_prefix(self) -> dict[str, Callable[[str], Answer]]:
        return {
            "/cosmos/auth/v1beta1/accounts/": self._account,
            "/cosmos/bank/v1beta1/balances/": self._balances,
            "/cosmos/tx/v1beta1/txs/": self._tx,
            "/akash/provider/v1beta4/providers/": self._provider,
        }

    def _by_path(self) -> dict[str, Callable[[dict[str, str]], Answer]]:
        return {
            "/cosmos/base/tendermint/v1beta1/blocks/latest": self._block,
            "/cosmos/base/tendermint/v1beta1/syncing": lambda query: as_json({"syncing": self._faults.syncing}),
            "/cosmos/base/tendermint/v1beta1/node_info": self._node_info,
            "/akash/deployment/v1beta4/params": self._deployment_params,
            "/akash/deployment/v1beta4/deployments/info": self._deployment,
            "/akash/deployment/v1beta4/deployments/list": self._deployments,
            "/akash/market/v1beta5/params": self._market_params,
            "/akash/market/v1beta5/bids/list": self._bids,
            "/akash/market/v1beta5/leases/list": self._leases,
            "/akash/provider/v1beta4/providers": self._all_providers,
            "/akash/cert/v1/certificates/list": self._certificates,
            "/akash/bme/v1/params": self._bme_params,
            "/akash/bme/v1/status": self._bme_status,
            "/akash/bme/v1/ledger": self._mints,
        }

    def _account(self, address: str) -> Answer:
        row: AccountRow | None = self._state.accounts.get(address)
        if row is None:
            return failed(404, _NOT_FOUND, f"account {address} not found: key not found")
        key = None
        if row.public_key:
            key = {"@type": "/cosmos.crypto.secp256k1.PubKey", "key": answers.b64(row.public_key)}
        account = {"@type": "/cosmos.auth.v1beta1.BaseAccount", "address": address, "pub_key": key}
        return as_json({"account": account | {"account_number": str(row.number), "sequence": str(row.sequence)}})

    def _balances(self, address: str) -> Answer:
        found = [
            {"denom": denom, "amount": str(amount)}
            for (owner, denom), amount in sorted(self._state.balances.items())
            if owner == address and amount
        ]
        return as_json({"balances": found, "pagination": {"next_key": None, "total": str(len(found))}})

    def _tx(self, tx_hash: str) -> Answer:
        if len(tx_hash) != 64 or not set(tx_hash.upper()) <= _HEX:
            return failed(400, _INVALID, f"invalid tx hash: {tx_hash}")
        found = self._chain.lookup(tx_hash.upper())
        if found is None or found.height > self._state.height:
            return failed(404, _NOT_FOUND, f"tx not found: {tx_hash}")
        return as_json({"tx": _tx_json(found), "tx_response": _included(found)})

    def _block(self, query: dict[str, str]) -> Answer:
        state = self._state
        header = {"chain_id": state.params.chain_id, "height": str(state.height), "time": answers.rfc3339(state.time_s)}
        return as_json({"block_id": {}, "block": {"header": header, "data": {"txs": []}}})

    def _node_info(self, query: dict[str, str]) -> Answer:
        version = {"name": "akash", "app_name": "akash", "version": "v2.1.0", "cosmos_sdk_version": "v0.53.7"}
        network = {"network": self._state.params.chain_id}
        return as_json({"default_node_info": network, "application_version": version})

    def _deployment_params(self, query: dict[str, str]) -> Answer:
        least = str(self._state.params.min_deposit)
        return as_json({"params": {"min_deposits": [{"denom": each, "amount": least} for each in ("uakt", "uact")]}})

    def _market_params(self, query: dict[str, str]) -> Answer:
        params = self._state.params
        deposit = {"denom": "uact", "amount": str(params.bid_min_deposit)}
        bounds = {
            "min_reclamation_window": f"{params.min_reclamation_s}s",
            "max_reclamation_window": f"{params.max_reclamation_s}s",
        }
        return as_json({"params": {"bid_min_deposit": deposit, "order_max_bids": params.max_bids} | bounds})

    def _deployment(self, query: dict[str, str]) -> Answer:
        owner, dseq = query.get("id.owner", ""), int(query.get("id.dseq", "0"))
        row = self._state.deployments.get((owner, dseq))
        if row is None:
            return failed(404, _NOT_FOUND, "Deployment not found: deployment not found")
        return as_json(answers.deployment(self._state, row))

    def _deployments(self, query: dict[str, str]) -> Answer:
        wanted = query.get("filters.state", "")
        if query.get("pagination.offset") and not wanted:
            return failed(400, _INVALID, "pagination.offset requires filters.state")
        owner, dseq = query.get("filters.owner", ""), query.get("filters.dseq", "")
        rows = [
            row
            for key, row in sorted(self._state.deployments.items())
            if owner in ("", row.owner) and dseq in ("", "0", str(row.dseq)) and wanted in ("", row.state)
        ]
        found = answers.page("deployments", [{"row": row} for row in rows], query)  # only those of the page are written
        found["deployments"] = [answers.deployment(self._state, each["row"]) for each in found["deployments"]]
        return as_json(found)

    def _bids(self, query: dict[str, str]) -> Answer:
        rows = self._market_rows(self._state.bids, query)
        return as_json(answers.page("bids", [answers.bid(self._state, row) for row in rows], query))

    def _leases(self, query: dict[str, str]) -> Answer:
        rows = self._market_rows(self._state.leases, query)
        return as_json(answers.page("leases", [answers.lease(self._state, row) for row in rows], query))

    def _market_rows(self, table: Any, query: dict[str, str]) -> list[Any]:
        owner, dseq = query.get("filters.owner", ""), query.get("filters.dseq", "")
        if owner and dseq not in ("", "0"):
            rows: list[Any] = table.those(self._state.bids_of.of((owner, int(dseq))))
        else:
            rows = [row for _, row in sorted(table.items()) if owner in ("", row.owner)]
        for name in ("gseq", "oseq", "provider", "state"):
            wanted = query.get(f"filters.{name}", "")
            rows = [row for row in rows if wanted in ("", "0", str(getattr(row, name)))]
        return rows

    def _provider(self, address: str) -> Answer:
        found = self._providers.get(address)
        if found is None:
            return failed(404, _NOT_FOUND, "invalid provider: address not found")
        return as_json({"provider": found.answer()})

    def _all_providers(self, query: dict[str, str]) -> Answer:
        return as_json(answers.page("providers", [each.answer() for each in self._providers.values()], query))

    def _certificates(self, query: dict[str, str]) -> Answer:
        rows: list[Json] = []
        for each in self._providers.values():
            certificate = each.certificate
            if query.get("filter.owner", "") not in ("", each.address):
                continue
            if query.get("filter.state", "") not in ("", "valid"):
                continue
            if query.get("filter.serial", "") not in ("", str(certificate.serial)):
                continue
            about = {
                "state": "valid",
                "cert": answers.b64(certificate.pem),
                "pubkey": answers.b64(certificate.public_key),
            }
            rows.append({"certificate": about, "serial": str(certificate.serial)})
        return as_json(answers.page("certificates", rows, query))

    def _bme_params(self, query: dict[str, str]) -> Answer:
        params = self._state.params
        return as_json(
            {
                "params": {
                    "circuit_breaker_warn_threshold": 9_500,
                    "circuit_breaker_halt_threshold": 9_000,
                    "min_epoch_blocks": str(params.min_epoch_blocks),
                    "epoch_blocks_backoff_percent": 1_000,
                    "mint_spread_bps": params.mint_spread_bps,
                    "settle_spread_bps": 0,
                    "min_mint": [{"denom": "uact", "amount": str(params.min_mint)}],
                    "max_pending_attempts": params.mint_tries,
                }
            }
        )

    def _bme_status(self, query: dict[str, str]) -> Answer:
        status = self._state.mint_status
        thresholds = {"warn_threshold": dec(95 * 10**16), "halt_threshold": dec(90 * 10**16)}
        allowed = {"mints_allowed": status not in HALTED, "refunds_allowed": True}
        return as_json({"status": status, "collateral_ratio": dec(2 * 10**18)} | thresholds | allowed)

    def _mints(self, query: dict[str, str]) -> Answer:
        source, status = query.get("filters.source", ""), query.get("filters.status", "")
        rows = [
            answers.mint(self._state, row)
            for _, row in sorted(self._state.mints.items())
            if source in ("", row.owner) and status in ("", f"ledger_record_status_{row.status}")
        ]
        return as_json(answers.page("records", rows, query))


_NAMED: Final = (
    "/cosmos/auth/v1beta1/accounts/",
    "/cosmos/bank/v1beta1/balances/",
    "/cosmos/tx/v1beta1/txs/",
    "/akash/provider/v1beta4/providers/",
)


def _response(tx_hash: str, *, code: int = 0, codespace: str = "", log: str = "") -> Json:
    return {
        "height": "0",
        "txhash": tx_hash,
        "codespace": codespace,
        "code": code,
        "data": "",
        "raw_log": log,
        "logs": [],
        "info": "",
        "gas_wanted": "0",
        "gas_used": "0",
        "tx": None,
        "timestamp": "",
        "events": [],
    }


def _included(found: Included) -> Json:
    return _response(found.tx.hash, code=found.code, codespace=found.codespace, log=found.log) | {
        "height": str(found.height),
        "data": found.data.hex().upper(),
        "gas_wanted": str(found.tx.fee.gas_limit),
        "gas_used": str(found.gas_used),
        "timestamp": answers.rfc3339(found.time_s).partition(".")[0] + "Z",
    }


def _tx_json(found: Included) -> Json:
    """The decoded transaction, as far as anyone reads it."""
    return {
        "body": {
            "messages": [{"@type": type_url} for type_url in found.tx.type_urls],
            "memo": found.tx.body.memo,
            "timeout_height": str(found.tx.body.timeout_height),
            "unordered": found.tx.body.unordered,
        },
        "signatures": [answers.b64(each) for each in found.tx.envelope.signatures],
    }
