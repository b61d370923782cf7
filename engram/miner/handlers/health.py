"""What a node reports about itself: health, statistics, its subnet."""

from __future__ import annotations

from engram.api import node
from engram.api.call import Call
from engram.api.node_model import Health, NodeStats, SubnetView
from engram.api.route import NoBody
from engram.http.request import Answer
from engram.miner.auth import Caller
from engram.miner.service import VERSION, Service
from engram.nodes.agreement import PROTOCOL


async def health(service: Service, _: Call[NoBody, Caller]) -> Health:
    """GET /health: alive, whether it can do its work (`ready`), and which launch this is. `vectors` counts public
    records; `uid` is null off the chain."""
    identity = service.identity
    return Health(
        status="ok",
        ready=service.ready(),
        vectors=service.store.count().public,
        launch_token=identity.launch_token,
        session_id=identity.session_id,
        boot_id=identity.boot_id,
        started_at=identity.started_at,
        hotkey=identity.signer.address,
        uid=service.subnet.uid(identity.signer.hotkey),
        embedder=service.embedder.state,
        index="ready" if service.searchable() else "loading",
        dimension=service.embedder.dimension,
        version=VERSION,
        protocol=PROTOCOL,
        noise=service.noise,
    )


async def stats(service: Service, _: Call[NoBody, Caller]) -> NodeStats:
    """GET /stats: the original's fields; null where the node does not know."""
    done = service.statistics
    signer = service.identity.signer
    return NodeStats(
        status="ok",
        vectors=service.store.count().public,
        peers=0,
        uid=service.subnet.uid(signer.hotkey),
        queries_today=done.queries_today,
        p50_latency_ms=done.p50_latency_ms,
        proof_rate=done.proof_rate,
        uptime_pct=service.uptime.percent,
        block=service.subnet.block,
        hotkey=signer.address,
    )


async def metagraph(service: Service, _: Call[NoBody, Caller]) -> SubnetView:
    """GET /metagraph: the subnet as this node last read it."""
    return SubnetView(neurons=service.subnet.neurons(), block=service.subnet.block)


async def document(_: Call[NoBody, Caller]) -> Answer:
    """GET /openapi.json."""
    return Answer(200, node.openapi_document())
