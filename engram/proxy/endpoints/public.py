"""GET /, /status and /check/{id}: who this is and whether it is ready. Open to anyone: without addresses or paths."""

from typing import Final

import msgspec

from engram.hotkeys import MalformedHotkey, ss58
from engram.proxy.backends.group import Group
from engram.proxy.exchange.incoming import Incoming
from engram.proxy.exchange.refusing import JSON, answer
from engram.proxy.plan import Plan
from engram.proxy.state import State

SERVICE: Final = "bittensor-miner-reverse-proxy"
VERSION: Final = "0.2.0"
"""The original's, which clients may look at."""
CHECK: Final = b"/check/"


async def healthy(request: Incoming, plan: Plan) -> None:
    """GET /: the process answers."""
    del plan
    await answer(request, 200, msgspec.json.encode({"status": "healthy", "service": SERVICE}), [JSON])


async def check(request: Incoming, plan: Plan) -> None:
    """GET /check/{id}: whether this proxy stands for that hotkey."""
    identifier = request.raw_path[len(CHECK) :].decode("latin-1")
    try:
        recognized = ss58.decode(identifier) == plan.self_key
    except MalformedHotkey:
        recognized = False
    if recognized:
        await answer(request, 200, msgspec.json.encode({"status": "ok", "identifier": identifier}), [JSON])
    else:
        request.code = "own_refused"
        await answer(request, 404, msgspec.json.encode({"detail": "Identifier not recognized"}), [JSON])


class Status:
    """GET /status: readiness of each component, and ages."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def __call__(self, request: Incoming, plan: Plan) -> None:
        await answer(request, 200, msgspec.json.encode(self.document(plan)), [JSON])

    def document(self, plan: Plan, *, private: bool = False) -> dict[str, object]:
        """Return the document; `private` adds what only the operator may see."""
        state = self._state
        chain, policy, threshold_age_s = self._chain(plan), state.policy, state.threshold_age_s
        backends = {name: _backend(group, private=private) for name, group in sorted(plan.groups.items())}
        places = state.admission.places
        authorization: dict[str, object] = {
            "allow_list": len(plan.policy.allowed),
            "min_stake": policy.min_stake,
            "min_stake_source": policy.source if private else policy.public_source,
            "min_stake_age_s": None if threshold_age_s is None else round(threshold_age_s, 1),
            "stake_unit": plan.policy.unit,
            "schemes": list(plan.settings.auth.schemes),
            "chain": chain,
        }
        requests: dict[str, object] = {
            "in_progress": places.taken,
            "queued": places.waiting,
            "jobs": len(state.jobs),
        }
        settings: dict[str, object] = {"number": plan.number, "current": not state.settings_error}
        if private:
            authorization["min_stake_error"] = state.threshold_error
            settings["error"] = state.settings_error
            settings["needs_restart"] = list(state.needs_restart)
            settings["spool_bytes"] = state.spool.held
            requests["jobs_error"] = state.jobs.problem
        return {
            "status": "running",
            "service": SERVICE,
            "version": VERSION,
            "epistula_ready": bool(plan.policy.allowed) or bool(chain["ready"]),
            "hotkey": ss58.encode(plan.self_key),
            "uptime_s": round(state.clock.monotonic() - state.started_s, 1),
            "authorization": authorization,
            "backends": backends,
            "requests": requests,
            "settings": settings,
        }

    def _chain(self, plan: Plan) -> dict[str, object]:
        age_s = self._state.chain.age_s()
        return {
            "configured": plan.policy.has_chain,
            "ready": age_s is not None and age_s <= plan.policy.max_age_s,
            "metagraph_age_s": None if age_s is None else round(age_s, 1),
            "max_age_s": plan.policy.max_age_s,
        }


def _backend(group: Group, *, private: bool) -> dict[str, object]:
    servers = group.words()
    serving = sum(1 for _, word, _, _ in servers if word in ("serving", "slow_start", "probing"))
    document: dict[str, object] = {
        "ready": serving > 0 and group.breaker_word == "closed",
        "servers": len(servers),
        "serving": serving,
        "in_progress": group.in_flight,
    }
    if private:
        document["breaker"] = group.breaker_word
        document["detail"] = [
            {"url": url, "state": word, "in_progress": count, "last_error": error}
            for url, word, count, error in servers
        ]
    return document
