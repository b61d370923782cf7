"""The operator's listener: /status with all details, /metrics, /why/{id}, next to /health and /ready."""

from typing import Any, Final, final

import msgspec

from config.model import HttpSettings
from engram.api import proxy_ops as api
from engram.api.call import Call, Surface
from engram.api.route import NoBody
from engram.api.serving import Endpoints
from engram.http.app import App, new_app
from engram.http.errors import ApiError
from engram.http.request import Answer, json_answer
from engram.http.router import Router
from engram.proxy.endings import in_words
from engram.proxy.endpoints.public import Status
from engram.proxy.state import State
from engram.telemetry.metrics import CONTENT_TYPE

_NEVER: Final = -1.0


@final
class _OpenSurface(Surface[None]):
    """A surface whose callers are whoever reaches loopback."""

    async def identify(self, call: Call[Any, None]) -> None:
        return None


def ops_app(state: State) -> App:
    """Return the operator's application."""
    settings = HttpSettings(requests_per_minute_per_ip=0)
    app = new_app("ops", settings=settings, clock=state.clock, ids=state.ids, metrics=state.metrics)
    status = Status(state)

    async def health(_: Call[NoBody, None]) -> object:
        return {"status": "ok"}

    async def ready(_: Call[NoBody, None]) -> Answer:
        missing = not_ready(state)
        return json_answer({"ready": not missing, "missing": missing}, 503 if missing else 200)

    async def show_status(_: Call[NoBody, None]) -> object:
        return status.document(state.plan, private=True)

    async def scrape(_: Call[NoBody, None]) -> Answer:
        return Answer(200, state.metrics.render(), media=CONTENT_TYPE)

    async def why(call: Call[NoBody, None]) -> object:
        ended = state.endings.of(call.path("request_id"))
        if ended is None:
            raise ApiError(404, "not_found", "no request of this id is known; the newest 10,000 are kept")
        return {"words": in_words(ended), "ended": msgspec.to_builtins(ended)}

    endpoints: Endpoints[None] = Endpoints(Router(app), _OpenSurface())
    endpoints.bind(api.HEALTH, health)
    endpoints.bind(api.READY, ready)
    endpoints.bind(api.STATUS, show_status)
    endpoints.bind(api.METRICS, scrape)
    endpoints.bind(api.WHY, why)
    endpoints.require_all(api.ROUTES)
    return app


def not_ready(state: State) -> list[str]:
    """Return what keeps this proxy from passing requests on; empty when nothing does."""
    plan, missing = state.plan, []
    age_s = state.chain.age_s()
    if not plan.policy.allowed and (age_s is None or age_s > plan.policy.max_age_s):
        missing.append("no caller can be authorized: no current metagraph and no allow list")
    used = {route.backend for route in plan.settings.table()}
    for name in sorted(used):
        group = plan.groups[name]
        if group.breaker_word == "open" or not any(_takes(word) for _, word, _, _ in group.words()):
            missing.append(f"no server of the backend {name} takes requests")
    return missing


def _takes(word: str) -> bool:
    return word in ("serving", "slow_start", "probing")


def measure(state: State) -> None:
    """Set the gauges to the current values."""
    metrics, plan = state.metrics, state.plan
    groups, places = plan.groups, state.admission.places
    metrics.proxy_backend_up.show(
        {name: sum(1 for _, word, _, _ in group.words() if _takes(word)) for name, group in groups.items()}
    )
    metrics.proxy_backend_in_flight.show({name: group.in_flight for name, group in groups.items()})
    metrics.proxy_breaker_open.show({name: group.breaker_word == "open" for name, group in groups.items()})
    metrics.proxy_places.show({"taken": places.taken, "waiting": places.waiting})
    metrics.proxy_spool_bytes.set(state.spool.held)
    metrics.proxy_body_memory_bytes.set(state.spool.held_in_memory)
    metrics.proxy_jobs.set(len(state.jobs))
    metrics.proxy_jobs_kept.set(state.jobs.kept_bytes)
    metrics.proxy_min_stake.set(state.policy.min_stake)
    read_s = state.threshold_age_s
    metrics.proxy_min_stake_age.set(_NEVER if read_s is None else read_s)
    age_s = state.chain.age_s()
    metrics.proxy_metagraph_age.set(_NEVER if age_s is None else age_s)
