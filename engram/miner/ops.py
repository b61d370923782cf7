"""The operator's endpoints of a node, on a separate loopback listener: /status, /metrics, namespaces."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import trio

from actors import Context, DrainingJob
from config.model import HttpSettings
from engram.api import node_ops
from engram.api.call import Call
from engram.api.node_ops import Administer, Administered, NamespaceCount
from engram.api.route import NoBody
from engram.api.serving import Endpoints
from engram.chain import ChainStatus
from engram.chain.registry.announce_view import AnnouncementStatus
from engram.clock import Clock, Ids
from engram.durable.driver import sqlite3
from engram.hotkeys import MalformedHotkey, parse_hotkey, ss58
from engram.http.app import App, new_app
from engram.http.authority import authority_check
from engram.http.errors import ApiError
from engram.http.listener import serve
from engram.http.request import Answer
from engram.http.router import Router
from engram.http.sockets import Address
from engram.memory.errors import InvalidRequest, NotFound
from engram.memory.filters import EVERYTHING
from engram.memory.model import PUBLIC
from engram.miner import authority
from engram.miner.auth import Caller, parse
from engram.miner.handlers.health import health
from engram.miner.service import Service
from engram.miner.surface import NodeSurface
from engram.telemetry.metrics import CONTENT_TYPE, Metrics

HOST = "127.0.0.1"
OPS_FILE = "ops.json"
_DELETED_AT_ONCE = 200


class OnChain(msgspec.Struct, frozen=True):
    """The node's view of its chain; null when it follows none or announces nothing."""

    syncing: ChainStatus | None = None
    announcement: AnnouncementStatus | None = None


def ops_app(
    service: Service, *, clock: Clock, ids: Ids, metrics: Metrics, chain: Callable[[], OnChain] = OnChain
) -> App:
    """Return the operator's application; `chain` returns what is known of the chain without any I/O."""
    app = new_app("ops", settings=HttpSettings(requests_per_minute_per_ip=0), clock=clock, ids=ids, metrics=metrics)

    def refresh() -> None:
        counts = service.store.count()
        metrics.vectors.set(counts.public + counts.private)
        metrics.miner_ready.set(service.ready() and service.searchable())

    metrics.before_scrape(refresh)

    async def scrape(_: Call[NoBody, Caller]) -> Answer:
        return Answer(200, metrics.render(), media=CONTENT_TYPE)

    async def status(_: Call[NoBody, Caller]) -> object:
        return _status(service, chain())

    async def wallets(_: Call[NoBody, Caller]) -> object:
        return {"wallets": service.statistics.wallets()}

    endpoints = Endpoints(Router(app), NodeSurface(service.disguise, metrics))
    endpoints.bind(node_ops.METRICS, scrape)
    endpoints.bind(node_ops.STATUS, status)
    endpoints.bind(node_ops.HEALTH, partial(health, service))
    endpoints.bind(node_ops.NAMESPACE, partial(administer, service))
    endpoints.bind(node_ops.WALLETS, wallets)
    endpoints.bind(node_ops.WALLET, partial(_wallet, service))
    endpoints.require_all(node_ops.ROUTES)
    app.edge.check(authority_check(authority.read_by))
    return app


def _status(service: Service, chain: OnChain) -> dict[str, object]:
    identity = service.identity
    return {
        "session_id": identity.session_id,
        "boot_id": identity.boot_id,
        "started_at": identity.started_at,
        "hotkey": identity.signer.address,
        "netuid": identity.netuid,
        "uid": service.subnet.uid(identity.signer.hotkey),
        "chain": chain.syncing,
        "announcement": chain.announcement,
    }


async def administer(service: Service, call: Call[Administer, Caller]) -> Administered:
    """POST /namespace: `{"action": "list"}` counts records by namespace; `{"action": "delete", "namespace": …}` erases
    one as `list` names it. Create and rotate do not exist: a namespace begins with its first record."""
    if call.header("Origin"):  # a page in the operator's browser must not reach this
        raise ApiError(403, "browser", "This is not for web pages.")
    fields = parse(call.http.body, call.route.signed_as).fields
    match fields.get("action"):
        case "list":
            return Administered(namespaces=await service.truth.read(_counted))
        case "delete":
            name = fields.get("namespace")
            if not isinstance(name, str) or name in ("", PUBLIC):
                raise InvalidRequest("namespace must name a private namespace, as the action list does.")
            return Administered(deleted=await _erase(service, name), namespace=name)
        case _:
            raise InvalidRequest("action must be list or delete.")


def ops_job(app: App, port: int, folder: Path, *, drain_s: float) -> DrainingJob:
    """Return the job that serves the operator on loopback and writes its address to the data folder."""

    async def run(context: Context) -> None:
        await serve(app, HOST, port, context=_Noting(context, folder), settings=HttpSettings(), drain_s=drain_s)

    return DrainingJob(run)


class _Noting:
    """Wraps a job's context: writes the listener's address to the data folder before reporting ready."""

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


async def _wallet(service: Service, call: Call[NoBody, Caller]) -> object:
    try:
        wanted = ss58.encode(parse_hotkey(call.path("hotkey")))
    except MalformedHotkey as error:
        raise InvalidRequest(f"{error}") from error
    found = [each for each in service.statistics.wallets() if each["hotkey"] == wanted]
    if not found:
        raise NotFound
    return found[0]


async def _erase(service: Service, name: str) -> int:
    erased = 0
    while page := await service.store.page(name, EVERYTHING, _DELETED_AT_ONCE, 0):
        outcomes = await service.store.delete_all(name, [record.cid for record in page], lambda owner: True)
        erased += outcomes.count("deleted")
    return erased


def _counted(connection: sqlite3.Connection) -> list[NamespaceCount]:
    rows = connection.execute("SELECT namespace, count(*) FROM records GROUP BY namespace ORDER BY namespace")
    return [NamespaceCount(str(name), int(count)) for name, count in rows]
