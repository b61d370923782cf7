"""The control endpoint, loopback only: faults, coins, blocks, and what the double has seen.

| request | body or answer |
|---|---|
| GET /state | addresses, ports, height; counts and sums of the chain; what was sent and requested |
| GET /waits | for each deployment: what the double itself made everybody wait for, real seconds (waits.py) |
| POST /faults | {"chain": {...}, "nodes": {"0": {...}}, "providers": {"ada": {...}}}: fields of `faults` |
| POST /fund | {"address", "uakt", "uact"}: coins out of nothing |
| POST /drain | {"address", "denom"}: all coins of an account are gone |
| POST /blocks | {"count": 10, "step_s": 6.0}: blocks at once, the chain's clock moved on by so much for each |
| POST /mint | {"status": "mint_status_halt_cr"} |
| POST /leave | {"provider", "reason": "unstable"}: it ends all its leases, with notice where it promised one |
| POST /kill | {"provider"}: its machines lose power; the leases stay |
| POST /swap | {"provider"}: it answers in the place of the nodes that ran there |
| POST /rotate | {"provider"}: a new certificate; the one before is revoked |
| POST /forget | {"provider"}: it has restarted and knows no manifest |
"""

import json
from collections.abc import Callable
from typing import Any

import msgspec

from tests.doubles.akash import audit
from tests.doubles.akash.chain import Chain
from tests.doubles.akash.faults import Faults
from tests.doubles.akash.gateway import Gateway
from tests.doubles.akash.provider import Provider
from tests.doubles.akash.rest import Node
from tests.doubles.akash.serving import Answer, Request, as_json
from tests.doubles.akash.waits import Waits


class Control:
    def __init__(
        self,
        chain: Chain,
        faults: Faults,
        nodes: list[Node],
        providers: dict[str, Provider],
        gateways: dict[str, Gateway],
        make_blocks: Callable[[int, float], None],
        rotate: Callable[[str], None],
    ) -> None:
        self._chain = chain
        self._faults = faults
        self._nodes = nodes
        self._providers = providers
        self._gateways = gateways
        self._make_blocks = make_blocks
        self._rotate = rotate
        self.endpoints: list[str] = []
        self.waits: Waits | None = None

    async def handle(self, request: Request) -> Answer:
        """Answer one request."""
        if (request.method, request.path) == ("GET", "/state"):
            return as_json(self.state())
        if (request.method, request.path) == ("GET", "/waits"):
            return as_json({} if self.waits is None else self.waits.seconds)
        try:
            sent: dict[str, Any] = json.loads(request.body or b"{}")
            await self._do(request.path, sent)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            return as_json({"error": f"{request.path}: {error!r}"}, 400)
        return as_json(self.state())

    def state(self) -> dict[str, Any]:
        """Return what the double has seen."""
        return {
            "endpoints": self.endpoints,
            "chain": audit.summary(self._chain.state),
            "waiting": len(self._chain.waiting),
            "included": len(self._chain.included),
            "failed": [
                {"hash": each.tx.hash, "code": each.code, "codespace": each.codespace, "log": each.log}
                for each in self._chain.included.values()
                if each.code
            ],
            "nodes": [{"sent": each.sent, "requests": each.requests} for each in self._nodes],
            "providers": {
                name: {
                    "address": each.address,
                    "host_uri": each.host_uri,
                    "leases": len(each.tenancies),
                    "manifests": each.manifests_taken,
                    "requests": len(self._gateways[name].requests),
                }
                for name, each in self._providers.items()
            },
        }

    async def _do(self, path: str, sent: dict[str, Any]) -> None:
        match path:
            case "/faults":
                self._set(self._faults.chain, sent.get("chain", {}))
                for index, values in sent.get("nodes", {}).items():
                    self._set(self._faults.nodes[int(index)], values)
                for name, values in sent.get("providers", {}).items():
                    self._set(self._faults.providers[name], values)
            case "/fund":
                self._chain.fund(sent["address"], uakt=int(sent.get("uakt", 0)), uact=int(sent.get("uact", 0)))
            case "/drain":
                self._chain.drain(sent["address"], sent["denom"])
            case "/blocks":
                self._make_blocks(int(sent.get("count", 1)), float(sent.get("step_s", 6.0)))
            case "/rotate":
                self._rotate(sent["provider"])
            case "/mint":
                self._chain.state.mint_status = sent["status"]
            case "/leave":
                provider = self._providers[sent["provider"]]
                for tenancy in provider.tenancies.values():
                    provider.leave(tenancy, f"lease_closed_reason_{sent['reason']}")
            case "/kill":
                await self._providers[sent["provider"]].kill_workloads()
            case "/swap":
                await self._providers[sent["provider"]].swap_workloads()
            case "/forget":
                for tenancy in self._providers[sent["provider"]].tenancies.values():
                    tenancy.manifest = None
            case _:
                raise ValueError("there is no such control")

    def _set(self, faults: msgspec.Struct, values: dict[str, Any]) -> None:
        known = msgspec.convert(values, type(faults))
        for name in values:
            setattr(faults, name, getattr(known, name))
