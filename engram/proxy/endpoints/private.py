"""/capacity and /jobs/{id}: for callers that are proven, and for the miner's own tools."""

import hmac
from typing import Final

import msgspec
import structlog

from engram.proxy.app import ProxyApp
from engram.proxy.capacity import BadCapacity
from engram.proxy.exchange.heads import first
from engram.proxy.exchange.incoming import Incoming
from engram.proxy.exchange.proof import read_whole
from engram.proxy.exchange.refusing import JSON, answer
from engram.proxy.jobs import answering
from engram.proxy.plan import Plan
from engram.proxy.state import State

JOBS: Final = b"/jobs/"
_SECRET: Final = b"x-internal-secret"
_OWN_BODY_BYTES: Final = 65_536

_log = structlog.get_logger("engram.proxy")


class Private:
    """The handlers; they share the application's way to prove a caller."""

    def __init__(self, app: ProxyApp, state: State) -> None:
        self._app = app
        self._state = state

    async def capacity(self, request: Incoming, plan: Plan) -> None:
        """GET /capacity: what the miner advertises."""
        (await self._app.prove(request, plan, _OWN_BODY_BYTES, whole=True)).close()
        document = msgspec.json.encode(self._state.capacity.document())
        await answer(request, 200, document, [JSON])

    async def update_capacity(self, request: Incoming, plan: Plan) -> None:
        """POST /capacity: replace what is advertised, by the internal secret."""
        secret = plan.settings.auth.self_debug_key
        given = first(request.headers, _SECRET)
        if not secret:
            await _refuse(request, 500, "Internal guard not configured")
        elif given is None:
            await _refuse(request, 401, "Missing X-Internal-Secret header")
        elif not hmac.compare_digest(given, secret.encode("utf-8")):
            await _refuse(request, 403, "Invalid internal secret")
        else:
            body = await read_whole(request, plan, self._state.spool, _OWN_BODY_BYTES)
            try:
                document = self._state.capacity.update(body.content)
            except BadCapacity as error:
                await _refuse(request, 400, str(error))
                return
            finally:
                body.close()
            _log.info("capacity_updated", names=sorted(document))
            await answer(request, 200, msgspec.json.encode(document), [JSON])

    async def job(self, request: Incoming, plan: Plan) -> None:
        """GET /jobs/{id}: the result of a job of the caller's, or its state."""
        job_id = request.raw_path[len(JOBS) :].decode("latin-1")
        (await self._app.prove(request, plan, _OWN_BODY_BYTES, whole=True)).close()
        found = answering.require(await self._state.jobs.find(job_id, request))
        await answering.answer_known(request, self._state.jobs, found, 0.0)


async def _refuse(request: Incoming, status: int, detail: str) -> None:
    request.code, request.detail = "own_refused", detail
    await answer(request, status, msgspec.json.encode({"detail": detail}), [JSON])
