"""The operator's listener of a worker: /health, /ready, /status, /jobs, /metrics."""

from collections.abc import Callable
from typing import Final

import msgspec

from config.model import HttpSettings, WorkerSettings
from engram.api import worker_ops as api
from engram.api.call import Call, Surface
from engram.api.node_model import Health
from engram.api.route import NoBody
from engram.api.serving import Endpoints
from engram.clock import Clock, Ids
from engram.http.app import App, new_app
from engram.http.request import Answer, json_answer
from engram.http.router import Router
from engram.ledger import Ledger
from engram.telemetry.metrics import CONTENT_TYPE, Metrics
from engram.worker import records
from engram.worker.link import ReadGpu
from engram.worker.service import WorkerService

MOST_JOBS: Final = 200


def ops_app(
    service: Callable[[], WorkerService],
    ledger: Ledger,
    settings: WorkerSettings,
    hotkey: str,
    gpu: ReadGpu,
    *,
    http: HttpSettings,
    clock: Clock,
    ids: Ids,
    metrics: Metrics,
) -> App:
    """Return the operator's application; `service` returns the worker's current life."""
    own = msgspec.structs.replace(http, cors_origins=(), requests_per_minute_per_ip=0)
    app = new_app("ops", settings=own, clock=clock, ids=ids, metrics=metrics)

    async def health(_: Call[NoBody, None]) -> Health:
        return Health(status="ok")

    async def ready(_: Call[NoBody, None]) -> Answer:
        link = service().link.status
        missing = [] if link.phase == "serving" else [f"the orchestrator is not connected: {link.phase}"]
        return json_answer({"ready": not missing, "missing": missing}, 503 if missing else 200)

    async def status(_: Call[NoBody, None]) -> object:
        now = service()
        return {
            "orchestrator_url": settings.orchestrator_url,
            "hotkey": hotkey,
            "link": now.link.status,
            "gpu": await gpu(),
            "jobs": {
                "running": now.runner.running,
                "waiting": max(0, now.runner.in_flight - now.runner.running),
                "concurrency": settings.concurrency,
                "kept": await ledger.read(records.counts),
            },
        }

    async def jobs(_: Call[NoBody, None]) -> object:
        return {"jobs": await ledger.read(lambda c: records.newest(c, MOST_JOBS))}

    async def scrape(_: Call[NoBody, None]) -> Answer:
        service().measure()
        return Answer(200, metrics.render(), media=CONTENT_TYPE)

    endpoints: Endpoints[None] = Endpoints(Router(app), Surface())
    endpoints.bind(api.HEALTH, health)
    endpoints.bind(api.READY, ready)
    endpoints.bind(api.STATUS, status)
    endpoints.bind(api.JOBS, jobs)
    endpoints.bind(api.METRICS, scrape)
    endpoints.require_all(api.ROUTES)
    return app
