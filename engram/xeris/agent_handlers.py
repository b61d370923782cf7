"""MCP on the receiver's public surface."""

from typing import final

from engram.api import mcp as api
from engram.api.call import Call
from engram.api.serving import Endpoints
from engram.clock import Clock
from engram.http.request import Answer, json_answer
from engram.mcp import Catalog, Dispatcher
from engram.mcp.access import Access, Policy
from engram.mcp.http import McpEndpoint
from engram.mcp.revocation import RevocationEndpoint, Revocations
from engram.telemetry.metrics import Metrics


@final
class Agents:
    """What agents are offered, and which of them."""

    def __init__(self, catalog: Catalog, policy: Policy, revocations: Revocations) -> None:
        self.catalog = catalog
        self.policy = policy
        self.revocations = revocations


def bind_mcp(endpoints: Endpoints[None], agents: Agents | None, clock: Clock, metrics: Metrics) -> None:
    """Bind the endpoints of MCP; without `agents` they answer 404."""
    if agents is None:
        refused = json_answer(api.McpRefusal("agents are not served here", "not_found"), 404)

        async def refuse(_: Call[api.McpMessage, None]) -> Answer:
            return refused

        async def refuse_too(_: Call[api.RevokeBody, None]) -> Answer:
            return refused

        endpoints.bind(api.MCP, refuse)
        endpoints.bind(api.REVOKE, refuse_too)
        return
    name = agents.catalog.info.name

    def measure(method: str, outcome: str, seconds: float) -> None:
        metrics.mcp_requests.labels(name, method, outcome).inc()
        metrics.mcp_seconds.labels(name, method).observe(seconds)

    access = Access(agents.policy, clock, agents.revocations.is_revoked)
    dispatcher = Dispatcher(agents.catalog, measure)
    for method, outcome in ((m, o) for m in dispatcher.methods for o in ("ok", "failed", "refused")):
        metrics.mcp_requests.labels(name, method, outcome)
    endpoint = McpEndpoint(dispatcher, access, lambda code: metrics.auth_refused.labels("mcp", code).inc())
    revoking = RevocationEndpoint(access, agents.revocations, clock)

    async def post(call: Call[api.McpMessage, None]) -> Answer:
        return await endpoint.post(call.http)

    async def revoke(call: Call[api.RevokeBody, None]) -> Answer:
        return await revoking.post(call.http)

    endpoints.bind(api.MCP, post)
    endpoints.bind(api.REVOKE, revoke)
