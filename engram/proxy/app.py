"""The proxy as an ASGI application: each request is named, counted for its address, routed, proven, admitted, passed
on, and ends with one code in log and metric.

    named -> counted -> routed -> own endpoint ---------------------------------> ended
                          |
                          +-> unproven --claim, body, signature--> proven --> admitted --> passed on | job --> ended
                                                                            (each -> refused -> ended)

A claim is judged before the body is read, and until its signature holds a request counts for its address alone.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, final

import structlog
import trio

from engram.hotkeys import AuthError
from engram.http.asgi import JSON, HeaderLines, Receive, Scope, Send, error_body, respond
from engram.http.cycle import STREAM
from engram.http.limits import bucket_of
from engram.proxy import noting
from engram.proxy.endings import CLIENT_GONE
from engram.proxy.exchange.admission import Slot
from engram.proxy.exchange.auth_texts import unauthorized, unbelieved
from engram.proxy.exchange.bodies import Body
from engram.proxy.exchange.heads import first
from engram.proxy.exchange.incoming import Incoming
from engram.proxy.exchange.passing import Passing
from engram.proxy.exchange.proof import proven
from engram.proxy.exchange.refusing import Gone, Refusal, refuse
from engram.proxy.exchange.signing import signing
from engram.proxy.exchange.transfer import AnswerCut
from engram.proxy.exchange.watching import Watch
from engram.proxy.jobs import answering
from engram.proxy.jobs.worker import RunningJob, Undertaking
from engram.proxy.plan import Plan
from engram.proxy.routing import Matched, NoRoute
from engram.proxy.state import NotAuthorized, State

Own = Callable[["Incoming", Plan], Awaitable[None]]
"""Answers one of the proxy's own endpoints."""

_DRAINED_BYTES: Final = 268_435_456
_STRANGERS_DRAINED_BYTES: Final = 8_388_608
_DRAIN_S: Final = 20.0
_DRAIN_PAUSE_S: Final = 2.0
"""A client that sends nothing for so long is not in the middle of its body."""
_LAST_WORD_S: Final = 0.5
"""Seconds to tell a client that the time to drain is over."""
_MOST_KEY: Final = 128
_SIGNATURES: Final = frozenset(
    {b"authorization", b"epistula-request-signature", b"x-epistula-signature", b"body-signature"}
)

_log = structlog.get_logger("engram.proxy")


@final
class ProxyApp:
    """Answers requests by the plan in force."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._own: dict[str, dict[str, Own]] = {}
        self._own_prefixes: dict[bytes, str] = {}
        self._tunnel: Callable[[Scope, Receive, Send, Incoming, Plan], Awaitable[None]] | None = None

    def add(self, method: str, path: str, answer: Own) -> None:
        """Answer an endpoint of the proxy itself; a path that ends with a slash and `*` is a prefix."""
        self._own.setdefault(path, {})[method] = answer
        if path.endswith("/*"):
            self._own_prefixes[path[:-1].encode("ascii")] = path

    def add_tunnel(self, tunnel: Callable[[Scope, Receive, Send, Incoming, Plan], Awaitable[None]]) -> None:
        """Pass WebSockets on by `tunnel`."""
        self._tunnel = tunnel

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = self._state
        plan = state.plan
        request = _incoming(scope, receive, send, plan, state.ids.token(8))
        origin = first(request.headers, b"origin")
        if origin is not None:
            request.cors = plan.cors_headers(origin)
        try:
            if scope["type"] == "websocket":
                await self._answer_websocket(scope, request, plan)
            else:
                scope["extensions"][STREAM]()
                await self._answer(request, plan)
        except Refusal as refusal:
            await self._refuse(request, refusal)
        except AnswerCut as cut:
            request.code, request.detail = cut.code, str(cut)
            if not request.status:
                own = Refusal("backend_cut", "Error connecting to backend service", message=str(cut))
                await self._refuse(request, own)
        except Gone:
            request.code = request.code or "client_gone_body"
            await _see_off(request)
        except Exception:  # noqa: BLE001 -- the seam of a surface: whatever it throws becomes a 500 with its request id
            _log.exception("request_failed", request_id=request.request_id, path=request.raw_path.decode("latin-1"))
            await self._refuse(request, Refusal("internal", "Internal server error"))
        except BaseException:  # cancelled, alone or in a group: the time to drain is over
            if not request.code:
                await self._cut(request)
            raise
        finally:
            noting.note(state, request)
        if request.answered and not request.read_to_end and not request.is_websocket:
            await _read_away(request)

    async def _refuse(self, request: Incoming, refusal: Refusal) -> bool:
        """End a request with a refusal; return False where its client is known not to have received that."""
        request.code, request.detail = refusal.code, refusal.cause
        if request.status:
            return True  # the head has been sent: the connection is cut
        try:
            await refuse(request, refusal)
        except Gone:
            request.code = refusal.code  # why it ended, whether its client still learns that or not
            return False
        return True

    async def _cut(self, request: Incoming) -> None:
        """End a request for which the time to drain is over; its client is told so where it has no answer yet."""
        begun = "the proxy stopped before the backend had answered: what was asked may have been done, or not"
        refusal = Refusal("draining", "The miner is stopping", message=begun if request.backend else "")
        sent = False
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _LAST_WORD_S), suppress(OSError):
            sent = await self._refuse(request, refusal)
        if not sent:
            request.status, request.sent_bytes = CLIENT_GONE, 0

    async def _answer(self, request: Incoming, plan: Plan) -> None:
        state = self._state
        if await self._answer_own(request, plan):
            return
        state.admission.count_address(request)
        if request.method == "OPTIONS" and (allowed := _preflight(request, plan)) is not None:
            request.code, request.route, request.status = "own", "preflight", 204
            await respond(request.send, 204, b"", [*allowed, *request.cors])
            return
        matched = plan.routes.find(request.method, request.raw_path)
        if isinstance(matched, NoRoute):
            raise _no_route(matched)
        request.route = matched.route.path
        limit = matched.route.max_bytes or plan.settings.bodies.max_bytes
        is_job = matched.route.answer_after_s > 0 and request.method == "POST"
        body = await self.prove(request, plan, limit, whole=is_job)
        if is_job:
            await self._run_as_job(request, plan, matched, body)
        else:
            await self._pass_on(request, plan, matched, body)

    async def _pass_on(self, request: Incoming, plan: Plan, matched: Matched, body: Body) -> None:
        state, slot = self._state, None
        try:
            slot = state.admission.enter_key(request)
            await Passing(request, plan, matched, body, state.admission, state.watches).run()
            request.code = request.code or "done"
        finally:
            body.close()
            if slot is not None:
                slot.release()

    async def _answer_own(self, request: Incoming, plan: Plan) -> bool:
        path = request.raw_path.decode("latin-1")
        methods = self._own.get(path)
        if methods is None:
            for prefix, name in self._own_prefixes.items():
                if request.raw_path.startswith(prefix):
                    methods, path = self._own[name], name
        if methods is None:
            return False
        request.route = path
        answer = methods.get("GET" if request.method == "HEAD" else request.method)
        if answer is None:
            if request.method == "OPTIONS" and plan.settings.server.cors_origins:
                return False
            raise _no_route(NoRoute(405, tuple(methods)))
        self._state.admission.count_address(request)
        await answer(request, plan)
        request.code = request.code or "own"
        return True

    async def prove(self, request: Incoming, plan: Plan, limit: int, *, whole: bool = False) -> Body:
        """Return the body of a request whose caller is proven, and counted for its key. Raises Refusal and Gone."""
        state = self._state
        unproven = state.admission.enter_unproven(request)
        try:
            body = await proven(request, plan, state.spool, limit, state.now_ms(), whole=whole)
        except AuthError as error:
            state.metrics.proxy_auth.labels("refused", error.code).inc()
            names = {name for name, _ in request.headers}
            bare = error.code == "missing_header" and names.isdisjoint(_SIGNATURES)
            raise unbelieved(error, x_epistula=_is_x_epistula(request), bare=bare) from None
        except NotAuthorized as error:
            state.metrics.proxy_auth.labels("refused", error.refused.reason).inc()
            raise unauthorized(error.refused, x_epistula=_is_x_epistula(request)) from None
        finally:
            unproven.release()
        assert request.caller is not None
        request.sign = signing(plan.signer, request, state.now_ns)
        allowed = request.caller in plan.policy.allowed
        state.metrics.proxy_auth.labels("accepted", "allow_list" if allowed else "permit").inc()
        try:
            state.admission.count_key(request)
        except BaseException:
            body.close()
            raise
        return body

    async def _run_as_job(self, request: Incoming, plan: Plan, matched: Matched, body: Body) -> None:
        state, after_s = self._state, matched.route.answer_after_s
        taken: list[Slot] = []
        started: RunningJob | None = None
        try:
            key = _idempotency_key(request)
            begun = None if key is None else await state.jobs.known(request, key)
            if begun is None:
                taken.append(state.admission.enter_key(request))
                taken.append(await self._place(request))
                begun = await state.jobs.begin(plan, Undertaking(request, matched, body, taken), key)
            if isinstance(begun, RunningJob) and begun.request is request:
                started = begun
        finally:
            if started is None:
                body.close()
                for each in taken:
                    each.release()
        if isinstance(begun, RunningJob):
            await answering.answer_new(request, state.jobs, begun, after_s, keep=key is not None)
        else:
            await answering.answer_known(request, state.jobs, begun, after_s)

    async def _place(self, request: Incoming) -> Slot:
        """Return a place for a job, whose client is watched while it waits. Raises Refusal and Gone."""
        admission = self._state.admission
        if (slot := admission.place_now()) is not None:
            return slot
        return await Watch(request.receive, request).unless_gone(lambda: admission.place(request))

    async def _answer_websocket(self, scope: Scope, request: Incoming, plan: Plan) -> None:
        self._state.admission.count_address(request)
        matched = plan.routes.find("GET", request.raw_path)
        if isinstance(matched, NoRoute) or not matched.route.websocket or self._tunnel is None:
            raise _no_route(matched if isinstance(matched, NoRoute) else NoRoute(404))
        request.route = matched.route.path
        await self._tunnel(scope, request.receive, request.send, request, plan)


def _incoming(scope: Scope, receive: Receive, send: Send, plan: Plan, request_id: str) -> Incoming:
    peer = str((scope.get("client") or ("", 0))[0])
    if not plan.settings.server.trusted_proxies:
        return Incoming(scope, receive, send, request_id, peer, bucket_of(peer), trio.current_time())
    forwarded = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    client = plan.client_address.of(peer, forwarded)
    request = Incoming(scope, receive, send, request_id, client, bucket_of(client), trio.current_time())
    if plan.settings.server.public_url and plan.client_address.trusts(peer):
        request.secure = True  # the front has ended TLS
    return request


def _is_x_epistula(request: Incoming) -> bool:
    return any(name.startswith(b"x-epistula-") for name, _ in request.headers)


def _preflight(request: Incoming, plan: Plan) -> HeaderLines | None:
    if not plan.settings.server.cors_origins:
        return None
    return plan.cors.preflight(first(request.headers, b"origin") or b"")


def _no_route(found: NoRoute) -> Refusal:
    if found.status == 405:
        methods = set(found.methods) | ({"HEAD"} if "GET" in found.methods else set())
        allow = ", ".join(sorted(methods)).encode("ascii")
        return Refusal("wrong_method", "Method Not Allowed", headers=[(b"allow", allow)])
    return Refusal("no_route", "Not Found")


def _idempotency_key(request: Incoming) -> str | None:
    value = first(request.headers, b"idempotency-key")
    if value is None:
        return None
    if not 0 < len(value) <= _MOST_KEY:
        raise Refusal("bad_request", f"Idempotency-Key has 1 to {_MOST_KEY} characters", reason="bad_idempotency_key")
    return value.decode("latin-1")


async def _see_off(request: Incoming) -> None:
    """End the exchange with a client that left before its answer; one that only stopped sending learns why."""
    if request.status or request.is_websocket:
        return
    body = error_body("the connection ended within the request", "client_gone", request.request_id)
    await respond(request.send, 400, body, [JSON, (b"connection", b"close"), *request.cors])
    request.status = CLIENT_GONE


async def _read_away(request: Incoming) -> None:
    """Read what is left of a body whose answer has been sent, within bounds: a client that sends all before it reads
    would see a reset connection instead of the answer."""
    declared = request.declared_length
    waits = first(request.headers, b"expect") is not None and not request.received_bytes
    if declared == 0 or waits:
        return
    most = _STRANGERS_DRAINED_BYTES if request.caller is None else _DRAINED_BYTES
    seen, until = 0, trio.current_time() + _DRAIN_S
    with trio.CancelScope() as scope, suppress(OSError):
        while seen <= most:
            scope.deadline = min(until, trio.current_time() + _DRAIN_PAUSE_S)
            message = await request.receive()
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                return
            seen += len(message.get("body", b""))
