"""What a node tells of itself: alive, its work, its subnet."""

from __future__ import annotations

from engram.miner.answers import Answer
from engram.miner.service import VERSION, Service


def health(service: Service) -> Answer:
    """GET /health: alive, whether it can do its work (`ready`), and which launch this is. `vectors` counts public
    records; `uid` is null off the chain."""
    identity = service.identity
    return Answer(
        200,
        {
            "status": "ok",
            "ready": service.ready(),
            "vectors": service.store.count().public,
            "launch_token": identity.launch_token,
            "session_id": identity.session_id,
            "boot_id": identity.boot_id,
            "started_at": identity.started_at,
            "hotkey": identity.keypair.ss58,
            "uid": service.subnet.uid(identity.keypair.public_key),
            "embedder": service.embedder.state,
            "index": "ready" if service.searchable() else "loading",
            "dimension": service.embedder.dimension,
            "version": VERSION,
            "noise": service.noise,
        },
    )


def stats(service: Service) -> Answer:
    """GET /stats: the original's fields; null where the node does not know."""
    done = service.statistics
    keypair = service.identity.keypair
    return Answer(
        200,
        {
            "status": "ok",
            "vectors": service.store.count().public,
            "peers": 0,
            "uid": service.subnet.uid(keypair.public_key),
            "queries_today": done.queries_today,
            "p50_latency_ms": done.p50_latency_ms,
            "proof_rate": done.proof_rate,
            "uptime_pct": service.uptime.percent,
            "block": service.subnet.block,
            "avg_score": None,
            "hotkey": keypair.ss58,
        },
    )


async def metagraph(service: Service) -> Answer:
    """GET /metagraph: the subnet as this node last read it; nobody while it was told of no chain."""
    return Answer(200, {"neurons": service.subnet.neurons(), "block": service.subnet.block})
