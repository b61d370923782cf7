"""What the operator of a node may ask, on a loopback listener of its own: /status, /metrics, namespaces."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import trio
from quart import Response, request

from actors import Context, DrainingJob
from config.model import HttpSettings
from engram.chain import ChainStatus
from engram.chain.registry.announce_view import AnnouncementStatus
from engram.clock import Clock, Ids
from engram.durable.driver import sqlite3
from engram.hotkeys import MalformedHotkey, parse_hotkey, ss58
from engram.http import exchange
from engram.http.app import App, new_app
from engram.http.authority import AuthorityGate
from engram.http.errors import ApiError
from engram.http.listener import serve
from engram.http.sockets import Address
from engram.memory.errors import InvalidRequest, NotFound
from engram.memory.filters import EVERYTHING
from engram.memory.model import PUBLIC
from engram.miner import authority
from engram.miner.answers import Answer, plain, told_openly
from engram.miner.auth import parse
from engram.miner.handlers.health import health
from engram.miner.service import Service
from engram.telemetry.metrics import CONTENT_TYPE, Metrics

HOST = "127.0.0.1"
OPS_FILE = "ops.json"
_DELETED_AT_ONCE = 200


class OnChain(msgspec.Struct, frozen=True):
    """What a node knows of its chain; null where it was told of none, or announces nothing."""

    syncing: ChainStatus | None = None
    announcement: AnnouncementStatus | None = None


def ops_app(
    service: Service, *, clock: Clock, ids: Ids, metrics: Metrics, chain: Callable[[], OnChain] = OnChain
) -> App:
    """Returns the operator's application; `chain` tells what is known of the chain and asks nobody."""
    app = new_app("ops", settings=HttpSettings(requests_per_minute_per_ip=0), clock=clock, ids=ids, metrics=metrics)
    app.edge.put_behind(lambda inner: AuthorityGate(inner, authority.read_by))

    def refresh() -> None:
        counts = service.store.count()
        metrics.vectors.set(counts.public + counts.private)

    metrics.before_scrape(refresh)

    @app.get("/metrics")
    async def scrape() -> Response:
        return Response(metrics.render(), 200, content_type=CONTENT_TYPE)

    @app.get("/status")
    async def status() -> Response:
        return _response(Answer(200, _status(service, chain())))

    @app.get("/health")
    async def alive() -> Response:
        return _response(health(service))

    @app.post("/namespace")
    async def namespace() -> Response:
        if request.headers.get("Origin"):  # a page in the operator's browser must not reach this
            raise ApiError(403, "browser", "This is not for web pages.")
        return _response(await administer(service, exchange.current().body))

    @app.get("/wallet-stats")
    async def wallets() -> Response:
        return _response(Answer(200, {"wallets": service.statistics.wallets()}))

    @app.get("/wallet-stats/<hotkey>")
    async def wallet(hotkey: str) -> Response:
        return _response(await _wallet(service, hotkey))

    return app


def _status(service: Service, chain: OnChain) -> dict[str, object]:
    identity = service.identity
    return {
        "session_id": identity.session_id,
        "boot_id": identity.boot_id,
        "started_at": identity.started_at,
        "hotkey": identity.keypair.ss58,
        "netuid": identity.netuid,
        "uid": service.subnet.uid(identity.keypair.public_key),
        "chain": chain.syncing,
        "announcement": chain.announcement,
    }


async def administer(service: Service, body: bytes) -> Answer:
    """POST /namespace: `{"action": "list"}` counts records by namespace; `{"action": "delete", "namespace": …}` erases
    one as `list` names it. There is nothing to create or rotate: a namespace begins with its first record."""

    async def act() -> Answer:
        fields = parse(body, "namespace").fields
        match fields.get("action"):
            case "list":
                counted = await service.truth.read(_counted)
                return Answer(200, {"namespaces": [{"namespace": name, "records": n} for name, n in counted]})
            case "delete":
                name = fields.get("namespace")
                if not isinstance(name, str) or name in ("", PUBLIC):
                    raise InvalidRequest("namespace must name a private namespace, as the action list does.")
                return Answer(200, {"deleted": await _erase(service, name), "namespace": name})
            case _:
                raise InvalidRequest("action must be list or delete.")

    return await told_openly(act, plain)


def ops_job(app: App, port: int, folder: Path, *, drain_s: float) -> DrainingJob:
    """Returns the job that serves the operator on loopback and notes the address in the data folder."""

    async def run(context: Context) -> None:
        await serve(app, HOST, port, context=_Noting(context, folder), settings=HttpSettings(), drain_s=drain_s)

    return DrainingJob(run)


class _Noting:
    """A job's context that writes down the address before it says that it is ready."""

    def __init__(self, context: Context, folder: Path) -> None:
        self._context = context
        self._folder = folder

    @property
    def stop_requested(self) -> trio.Event:
        return self._context.stop_requested

    def ready(self, info: object = None) -> None:
        if isinstance(info, Address):
            staged = self._folder / f".{OPS_FILE}"
            with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(msgspec.json.encode({"host": info.host, "port": info.port, "url": info.url}))
            os.replace(staged, self._folder / OPS_FILE)
        self._context.ready(info)


async def _wallet(service: Service, hotkey: str) -> Answer:
    async def act() -> Answer:
        try:
            wanted = ss58.encode(parse_hotkey(hotkey))
        except MalformedHotkey as error:
            raise InvalidRequest(f"{error}") from error
        found = [each for each in service.statistics.wallets() if each["hotkey"] == wanted]
        if not found:
            raise NotFound
        return Answer(200, found[0])

    return await told_openly(act, plain)


async def _erase(service: Service, name: str) -> int:
    erased = 0
    while page := await service.store.page(name, EVERYTHING, _DELETED_AT_ONCE, 0):
        outcomes = await service.store.delete_all(name, [record.cid for record in page], lambda owner: True)
        erased += outcomes.count("deleted")
    return erased


def _counted(connection: sqlite3.Connection) -> list[tuple[str, int]]:
    rows = connection.execute("SELECT namespace, count(*) FROM records GROUP BY namespace ORDER BY namespace")
    return [(str(name), int(count)) for name, count in rows]


def _response(answer: Answer) -> Response:
    response = Response(msgspec.json.encode(answer.body), answer.status, content_type="application/json")
    for name, value in answer.headers:
        response.headers.add(name, value)
    return response
