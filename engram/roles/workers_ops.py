"""What the operator sees of several gateways with one parent: each one's status, and all metrics in one scrape."""

import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import trio

from config.model import HttpSettings
from engram.api import workers_ops as api
from engram.api.call import Call, Surface
from engram.api.route import NoBody
from engram.api.serving import Endpoints
from engram.api.workers_ops import WorkersStatus, WorkerStatus, WorkersUp
from engram.clock import Clock, Ids
from engram.http.app import App, new_app
from engram.http.client import HttpClient
from engram.http.errors import HttpError
from engram.http.request import Answer
from engram.http.router import Router
from engram.telemetry.metrics import CONTENT_TYPE, Metrics

ASK_S: Final = 4.0
"""A worker that answers later is left out."""
MAX_BYTES: Final = 8 * 1024 * 1024
_SAMPLE: Final = re.compile(rb"^([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})? (.*)$")


class GatewayWorker(msgspec.Struct):
    """One worker as its parent knows it."""

    number: int
    process: trio.Process | None = None
    ops_url: str = ""
    """Empty until it serves."""
    restarts: int = 0
    ending: bool = False
    """Whether it was asked to end: a second signal would end it at once."""

    @property
    def running(self) -> trio.Process | None:
        """Its process, unless that has ended."""
        return self.process if self.process is not None and self.process.returncode is None else None


def application(
    url: str, workers: Sequence[GatewayWorker], http: HttpClient, settings: HttpSettings, clock: Clock, ids: Ids
) -> Callable[[], App]:
    """Return what makes the operator's application; `url` is where all workers serve."""
    own = msgspec.structs.replace(settings, cors_origins=(), requests_per_minute_per_ip=0)

    async def ask(path: str) -> dict[int, tuple[int, bytes]]:
        """Return the answers of the workers that give one, by their number."""
        found: dict[int, tuple[int, bytes]] = {}

        async def one(worker: GatewayWorker) -> None:
            try:
                answer = await http.request("GET", worker.ops_url + path, total_s=ASK_S, max_bytes=MAX_BYTES)
            except HttpError:
                return
            found[worker.number] = (answer.status, answer.content)

        async with trio.open_nursery() as nursery:
            for worker in workers:
                if worker.ops_url:
                    nursery.start_soon(one, worker)
        return found

    def up(count: int) -> Answer | WorkersUp:
        word = "ok" if count == len(workers) else "degraded" if count else "down"
        body = WorkersUp(status=word, up=count, workers=len(workers))
        return body if count else Answer(503, msgspec.json.encode(body), (("Retry-After", "2"),))

    async def health(_: Call[NoBody, None]) -> Answer | WorkersUp:
        return up(len([worker for worker in workers if worker.ops_url]))

    async def ready(_: Call[NoBody, None]) -> Answer | WorkersUp:
        return up(len([status for status, _ in (await ask("/ready")).values() if status == 200]))

    async def status(_: Call[NoBody, None]) -> WorkersStatus:
        answers = {number: body for number, (code, body) in (await ask("/status")).items() if code == 200}
        shown = [
            WorkerStatus(
                number=worker.number,
                state="up" if worker.ops_url else "starting",
                pid=worker.process.pid if worker.process else None,
                ops_url=worker.ops_url,
                restarts=worker.restarts,
                status=msgspec.Raw(answers[worker.number]) if worker.number in answers else None,
            )
            for worker in workers
        ]
        return WorkersStatus(url=url, workers=shown)

    async def scrape(_: Call[NoBody, None]) -> Answer:
        answers = await ask("/metrics")
        texts = {number: body for number, (code, body) in answers.items() if code == 200}
        return Answer(200, merged(texts), media=CONTENT_TYPE)

    def make() -> App:
        app = new_app("ops", settings=own, clock=clock, ids=ids, metrics=Metrics())
        endpoints: Endpoints[None] = Endpoints(Router(app), Surface())
        endpoints.bind(api.HEALTH, health)
        endpoints.bind(api.READY, ready)
        endpoints.bind(api.STATUS, status)
        endpoints.bind(api.METRICS, scrape)
        endpoints.require_all(api.ROUTES)
        return app

    return make


def merged(texts: dict[int, bytes]) -> bytes:
    """Return one exposition of several, each sample with the label `worker`; families stay in one piece.

    >>> merged({1: b'# TYPE a counter\\na{b="c"} 1\\n', 2: b"# TYPE a counter\\na 2\\n"}).decode().splitlines()
    ['# TYPE a counter', 'a{worker="1",b="c"} 1', 'a{worker="2"} 2']
    """
    heads: dict[bytes, list[bytes]] = {}
    samples: dict[bytes, list[bytes]] = {}
    for number, text in sorted(texts.items()):
        family = b""
        for line in text.splitlines():
            if line.startswith((b"# HELP ", b"# TYPE ")):
                family = line.split(b" ", 3)[2]
                head = heads.setdefault(family, [])
                if line not in head:
                    head.append(line)
            elif (sample := _SAMPLE.match(line)) is not None:
                name, labels, value = sample.groups()
                label = b'worker="%d"' % number + (b"," + labels if labels else b"")
                samples.setdefault(family, []).append(b"%s{%s} %s" % (name, label, value))
    lines = [line for family in samples for line in (*heads.get(family, ()), *samples[family])]
    return b"\n".join(lines) + b"\n"
