"""The gateway of a provider: its HTTPS interface for the owners of leases.

Errors of authentication are JSON, all others plain text, as the provider writes them.
"""

import json
import re
from collections.abc import Callable
from typing import Any, Final

import trio

from tests.doubles.akash import manifests, tokens, workloads
from tests.doubles.akash.chain import Chain
from tests.doubles.akash.faults import used
from tests.doubles.akash.provider import Provider, Tenancy
from tests.doubles.akash.serving import HUGE, Answer, Cut, Frames, Request, as_json
from tests.doubles.akash.store import State

_MANIFEST: Final = re.compile(r"/deployment/(\d+)/manifest")
_LEASE: Final = re.compile(r"/lease/(\d+)/(\d+)/(\d+)/(status|logs|kubeevents|manifest)")
_SERVICE: Final = re.compile(r"/lease/(\d+)/(\d+)/(\d+)/service/([^/]+)/status")
_SCOPES: Final = {"status": "status", "logs": "logs", "kubeevents": "events", "manifest": "get-manifest"}
LEASE_NOT_FOUND: Final = 4001
NO_PODS: Final = 4000


def text(status: int, message: str) -> Answer:
    return Answer(status, message.encode() + b"\n", "text/plain; charset=utf-8")


class Gateway:
    def __init__(self, provider: Provider, chain: Chain, now: Callable[[], float]) -> None:
        self._provider = provider
        self._chain = chain
        self._now = now
        self.requests: list[str] = []

    async def handle(self, request: Request) -> Answer | Frames:
        """Answer one request."""
        faults = self._provider.faults
        if faults.dead:
            raise Cut
        if faults.slow_s:
            await trio.sleep(faults.slow_s)
        self.requests.append(f"{request.method} {request.path}")
        if used(faults, "error_500"):
            return text(500, "injected")
        if faults.redirects:
            return Answer(307, location=faults.redirects)
        if used(faults, "huge"):
            return HUGE
        if request.path in ("/version", "/status", "/address") and request.method == "GET":
            return self._open_to_all(request.path)
        try:
            return await self._route(request)
        except tokens.Denied as denied:
            return as_json({"message": str(denied)}, 401)
        except manifests.Invalid as invalid:
            return text(422, str(invalid))

    def _open_to_all(self, path: str) -> Answer:
        if path == "/address":
            return as_json({"address": self._provider.address})
        if path == "/version":
            return as_json({"akash": {"version": "v0.10.0"}, "kube": {"major": "1", "minor": "30"}})
        return as_json({"cluster": {"leases": len(self._provider.tenancies)}, "bidengine": {"orders": 0}})

    async def _route(self, request: Request) -> Answer | Frames:
        if (found := _MANIFEST.fullmatch(request.path)) and request.method == "PUT":
            owner = self._owner(request, "send-manifest", int(found[1]))
            return self._put_manifest(owner, int(found[1]), request.body)
        if (found := _LEASE.fullmatch(request.path)) and request.method == "GET":
            dseq, gseq, oseq = (int(each) for each in found.groups()[:3])
            owner = self._owner(request, _SCOPES[found[4]], dseq)
            tenancy = self._provider.tenancy(owner, dseq, gseq, oseq)
            return await self._of_lease(found[4], tenancy, request.query)
        if (found := _SERVICE.fullmatch(request.path)) and request.method == "GET":
            dseq, gseq, oseq = (int(each) for each in found.groups()[:3])
            owner = self._owner(request, "status", dseq)
            tenancy = self._provider.tenancy(owner, dseq, gseq, oseq)
            if tenancy is None or tenancy.manifest is None or tenancy.service != found[4]:
                return text(404, "no such service")
            return as_json(self._services(tenancy, ready=await self._provider.look(tenancy))[found[4]])
        return text(404, "404 page not found")

    def _owner(self, request: Request, scope: str, dseq: int) -> str:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or not token:
            raise tokens.Denied("unauthorized access")
        owner, claims = tokens.owner_of(token, self._chain.state, self._now())
        if not tokens.allows(claims, scope, self._provider.address, dseq):
            raise tokens.Denied("unauthorized access")
        return owner

    def _put_manifest(self, owner: str, dseq: int, body: bytes) -> Answer:
        tenancy = self._provider.tenancy(owner, dseq)
        if tenancy is None:
            return text(404, "no lease for deployment")
        if self._provider.faults.ignores_manifest:
            return Answer(200)
        state = self._chain.state
        deployment = state.deployments.get((owner, dseq))
        assert deployment is not None
        group = state.groups.get((owner, dseq, tenancy.lease.gseq))
        assert group is not None
        self._provider.take(tenancy, manifests.check(body, deployment.hash, [group.spec]))
        return Answer(200)

    async def _of_lease(self, what: str, tenancy: Tenancy | None, query: dict[str, str]) -> Answer | Frames:
        if what in ("logs", "kubeevents"):
            return self._frames(what, tenancy, query)
        if tenancy is None or tenancy.manifest is None or used(self._provider.faults, "status_404"):
            return text(404, "manifest not found" if what == "manifest" else "lease not found")
        if what == "manifest":
            return as_json(tenancy.manifest)
        ready = await self._provider.look(tenancy)
        if self._provider.faults.loses_workloads:
            return as_json({"services": {}, "forwarded_ports": None, "ips": None})
        return as_json(
            {
                "services": self._services(tenancy, ready=ready),
                "forwarded_ports": self._forwarded(tenancy) if ready else None,
                "ips": None,
            }
        )

    def _services(self, tenancy: Tenancy, *, ready: bool) -> dict[str, Any]:
        assert tenancy.manifest is not None
        answer = {}
        for service in tenancy.manifest[0]["services"]:
            count, available = service["count"], service["count"] if ready else 0
            answer[service["name"]] = {
                "name": service["name"],
                "available": available,
                "total": count,
                "uris": self._uris(tenancy, service) if ready else None,
                "observed_generation": 1,
                "replicas": count,
                "updated_replicas": count,
                "ready_replicas": available,
                "available_replicas": available,
            }
        return answer

    def _uris(self, tenancy: Tenancy, service: dict[str, Any]) -> list[str] | None:
        """Host and port without a scheme; a real ingress has a name and port 80, which loopback has not."""
        if tenancy.workload is None or not any(_is_http(each) for each in service["expose"]):
            return None
        return [f"127.0.0.1:{tenancy.workload.port}"]

    def _forwarded(self, tenancy: Tenancy) -> dict[str, Any] | None:
        if tenancy.workload is None or tenancy.manifest is None:
            return None
        found = {
            service["name"]: [
                {
                    "host": "127.0.0.1",
                    "port": each["port"],
                    "externalPort": tenancy.workload.port,
                    "proto": each["proto"],
                    "name": service["name"],
                }
                for each in service["expose"]
                if each["global"] and not _is_http(each)
            ]
            for service in tenancy.manifest[0]["services"]
        }
        return {name: ports for name, ports in found.items() if ports} or None

    def _frames(self, what: str, tenancy: Tenancy | None, query: dict[str, str]) -> Frames:
        if tenancy is None:
            return Frames((), LEASE_NOT_FOUND, "lease not found")
        if tenancy.workload is None:
            return Frames((), NO_PODS, "no running pods")
        name = f"{tenancy.service}-5d8f7c6b9-x2x4z"
        if what == "logs":
            return Frames(workloads.frames(tenancy.workload.log(), name, int(query.get("tail", "100"))))
        pod = {"kind": "Pod", "namespace": "lease", "name": name}
        events = [{"type": "Normal", "reason": reason, "note": "", "object": pod} for reason in ("Pulled", "Started")]
        return Frames(tuple(json.dumps(event) for event in events))


def _is_http(expose: dict[str, Any]) -> bool:
    external = expose["externalPort"] or expose["port"]
    return bool(expose["global"]) and expose["proto"] == "TCP" and external == 80


def owners_of_nothing(state: State) -> list[str]:
    """Return deployments that are active without a lease that serves: what an owner must close."""
    serving = {(lease.owner, lease.dseq) for lease in state.leases.values() if lease.serves}
    return [
        f"{row.owner}/{row.dseq}"
        for row in state.deployments.values()
        if row.state == "active" and (row.owner, row.dseq) not in serving
    ]
