"""The orchestrator: authenticates workers, sends them jobs, takes their results. Also a program; see `__main__`."""

import json
import time
from typing import Any
from urllib.parse import parse_qs

import trio

from engram.hotkeys import ss58, verify
from engram.http.asgi import Receive, Scope, Send, respond
from tests.doubles.orchestrator.desk import Desk
from tests.doubles.orchestrator.polling import Polling
from tests.doubles.orchestrator.session import Session

WINDOW_S = 60.0


class Orchestrator:
    """An ASGI application; its attributes are what a test looks at."""

    def __init__(self, desk: Desk | None = None, *, ping_s: float = 5.0, patience_s: float = 5.0) -> None:
        self.desk = desk or Desk()
        self.ping_s, self.patience_s = ping_s, patience_s
        self.port, self.url = 0, ""
        self.sessions: list[Session] = []
        """Authenticated ones."""
        self.connections = 0
        self.introductions: list[dict[str, Any]] = []
        self.handshakes: list[dict[str, str]] = []
        self.answers_auth = True
        self.admits = trio.Event()
        """Introductions are looked at once this is set."""
        self.admits.set()
        self.opened: list[Session] = []
        """All that were opened, authenticated or not."""
        self.early: list[str] = []
        """Events that came before the worker was authenticated: each ends its session."""
        self.acknowledges = True
        """Whether `job_result` is acknowledged."""
        self.heeds_bounds = True
        """Whether answers to `reconcile` keep within what the worker names."""
        self.refuses = ""
        """The error with which every hotkey is refused."""
        self.reconciles: list[dict[str, Any]] = []
        """What workers said when they asked for jobs."""
        self.answered: dict[str, int] = {}
        """Acknowledgements of `job` by the job's id."""
        self._polled: dict[str, Polling] = {}
        """Clients that began by polling, by their session's id."""
        self._changed = trio.Event()
        self._nursery: trio.Nursery | None = None

    # -------------------------------------------------------------------------------------- as a test uses it

    def changed(self) -> None:
        """Wake what waits for something to happen."""
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, condition: Any, seconds: float = 10.0) -> None:
        """Wait until `condition()` holds."""
        with trio.fail_after(seconds):
            while not condition():
                await self._changed.wait()

    async def connected(self) -> Session:
        """Wait for a worker; return its session."""
        await self.until(lambda: self.sessions)
        return self.sessions[-1]

    async def post(self, job: dict[str, Any]) -> None:
        """Keep a job with an id, and send it to the worker that is there."""
        self.desk.post(job)
        if self.sessions and self._nursery is not None:
            self._nursery.start_soon(self._dispatch, self.sessions[-1], job)

    async def settled(self, *names: str, seconds: float = 10.0) -> list[Any]:
        """Wait for results; return them."""
        await self.until(lambda: all(name in self.desk.results for name in names), seconds)
        return [self.desk.results[name] for name in names]

    # -------------------------------------------------------------------------------------- as a server

    async def run(self) -> None:
        """Hold what it does beside connections."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await trio.sleep_forever()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request or a connection."""
        query = parse_qs(scope["query_string"].decode())
        polled = self._polled.get(query.get("sid", [""])[0])
        if scope["type"] == "http" and query.get("transport") == ["polling"]:
            await self._poll(scope, query, receive, send)
        elif scope["type"] == "http":
            await self._control(scope, receive, send)
        elif polled is not None:
            await polled.move(receive, send)
        elif query.get("EIO") == ["4"] and query.get("transport") == ["websocket"]:
            await receive()
            self._greet(scope)
            await send({"type": "websocket.accept"})
            await self._serve(Session(receive, send, ping_s=self.ping_s, patience_s=self.patience_s))
        else:
            await receive()
            await send({"type": "websocket.close"})

    def _greet(self, scope: Scope) -> None:
        self.handshakes.append({name.decode(): value.decode() for name, value in scope["headers"]})

    async def _poll(self, scope: Scope, query: dict[str, list[str]], receive: Receive, send: Send) -> None:
        """Serve a request of a client that polls; without a `sid` it is a new one."""
        body = await _body(receive)
        sid = query.get("sid", [""])[0]
        polling = self._polled.get(sid)
        if query.get("EIO") == ["4"] and not sid and self._nursery is not None:
            self._greet(scope)
            polling = Polling()
            session = Session(polling.receive, polling.send, ping_s=self.ping_s, patience_s=self.patience_s)
            session.upgrades = ["websocket"]
            self._polled[session.sid] = polling
            self._nursery.start_soon(self._serve, session)
        if polling is None:
            await respond(send, 400, b'{"code":1,"message":"Session ID unknown"}', [])
        elif scope["method"] == "POST":
            await polling.take(body, send)
        else:
            await polling.poll(send)

    async def _serve(self, session: Session) -> None:
        if not await session.open():
            return
        self.connections += 1
        self.opened.append(session)

        async def on_event(name: str, arguments: list[Any], answer: Any) -> None:
            await self._on_event(session, name, arguments, answer)

        try:
            await session.events(on_event)
        finally:
            if session in self.sessions:
                self.sessions.remove(session)
            self._polled.pop(session.sid, None)
            self.changed()

    async def _on_event(self, session: Session, name: str, arguments: list[Any], answer: Any) -> None:
        if name == "authenticate":
            await self._authenticate(session, arguments[0])
        elif not session.authenticated:
            self.early.append(name)
            await session.disconnect()
        elif name == "job_result":
            found = arguments[0]
            self.desk.deliveries[found["id"]] = self.desk.deliveries.get(found["id"], 0) + 1
            if self.acknowledges:
                self.desk.settle(found["id"], found["result"])
                await answer({"ok": True})
        elif name == "reconcile":
            self.reconciles.append(arguments[0])
            bounds = arguments[0] if self.heeds_bounds else {"jobs": [], "limit": 10**6, "max_bytes": 10**9}
            await answer({"jobs": self.desk.missing(**bounds)})
        self.changed()

    async def _authenticate(self, session: Session, said: dict[str, Any]) -> None:
        self.introductions.append(said)
        self.changed()
        await self.admits.wait()
        error = self.refuses or _wrong_with(said, {each["timestamp"] for each in self.introductions[:-1]})
        if error:
            await session.emit("auth_failed", {"error": error})
            await session.disconnect()
            return
        session.authenticated = said["hotkey"]
        self.sessions.append(session)
        if self.answers_auth:
            await session.emit("auth_success", {"message": "Authenticated"})
        self.changed()

    async def _dispatch(self, session: Session, job: dict[str, Any]) -> None:
        result = await session.call("job", job)
        if result is not None:
            self.answered[job["id"]] = self.answered.get(job["id"], 0) + 1
            if "retry_after_s" not in (result if isinstance(result, dict) else {}):
                self.desk.settle(job["id"], result)
            self.changed()

    async def _control(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /jobs posts jobs; GET /state shows everything; anything else is what a client of no transport gets."""
        body = await _body(receive)
        content: dict[str, Any]
        if scope["path"] == "/jobs":
            for job in json.loads(body):
                await self.post(job)
            content = {"posted": len(self.desk.jobs)}
        elif scope["path"] == "/state":
            content = {
                "open": len(self.desk.open),
                "results": self.desk.results,
                "contradictions": self.desk.contradictions,
                "connections": self.connections,
                "introductions": len(self.introductions),
                "gpu_info": [each.get("gpu_info") for each in self.introductions[-1:]],
                "sessions": len(self.sessions),
            }
        else:
            await respond(send, 400, b'{"code":0,"message":"Transport unknown"}', [])
            return
        await respond(send, 200, json.dumps(content).encode(), [])


async def _body(receive: Receive) -> bytes:
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message.get("more_body"):
            break
    return body


def _wrong_with(said: dict[str, Any], used: set[str]) -> str:
    """Return what is wrong with an introduction; empty when nothing is."""
    hotkey, timestamp = said["hotkey"], said["timestamp"]
    if abs(time.time() - int(timestamp) / 1e9) > WINDOW_S:
        return "Timestamp too old"
    if timestamp in used:
        return "Replay"
    message = f"auth:{hotkey}:{timestamp}".encode()
    return "" if verify(ss58.decode(hotkey), message, bytes.fromhex(said["signature"])) else "Invalid signature"
