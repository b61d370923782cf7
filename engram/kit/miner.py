"""A miner with an HTTP API: its endpoints, its application and its process."""

import inspect
import re
import typing
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar, final

import msgspec

from config.model import HttpSettings
from engram.api.call import Call
from engram.api.route import Method, NoBody, Response, Route
from engram.api.serving import Endpoints
from engram.clock import Clock, Ids
from engram.gpu import GpuReader
from engram.http.app import App, new_app
from engram.http.router import Router
from engram.kit import settings as kit_settings
from engram.kit.callers import Caller, Callers
from engram.kit.offer import CvmInfo, CvmRequest, Offer
from engram.kit.rate_limiter import RateLimiter
from engram.kit.settings import MinerSettings
from engram.kit.surface import WINDOW_S, MinerSurface
from engram.proxy.authorization import ChainView
from engram.telemetry.metrics import Metrics

AnyHandler = Callable[..., Awaitable[Any]]
H = TypeVar("H", bound=AnyHandler)

SIGNED: Final = ("epistula",)
_PATH: Final = re.compile(r"(/[A-Za-z0-9._~-]+)+/?")


class MinerHealth(msgspec.Struct, frozen=True):
    """The answer of /health."""

    status: str


_CVM: Final = Route(
    "cvm",
    "POST",
    "/cvm",
    "The compute that this miner offers.",
    CvmRequest,
    Response(200, "The offer.", CvmInfo),
    body_required=False,
    callers=SIGNED,
    hot=True,
)
_HEALTH: Final = Route(
    "health", "GET", "/health", "Whether it is up.", NoBody, Response(200, "It is.", MinerHealth), probe=True
)


@final
class Miner:
    """The endpoints of one miner. `/cvm` and `/health` are there already; `post` and `get` add others.

    A handler is `async def handler(caller: Caller, request: Request) -> Answer`: `Request` is a msgspec Struct that the
    JSON body must fit, `Answer` whatever msgspec can encode. A `get` handler takes the caller alone. Raise ApiError for
    a refusal; any other exception is a 500 with a request id.
    """

    def __init__(self, settings: MinerSettings) -> None:
        self.settings = settings
        self._rows: list[tuple[Route[Any, Any], AnyHandler]] = []

    @classmethod
    def from_file(cls, path: str | Path, *, host: str | None = None, port: int | None = None) -> "Miner":
        """Return a miner with the settings of a file. Raises ConfigError."""
        return cls(kit_settings.load(Path(path), host=host, port=port))

    def allow(self, *addresses: str) -> None:
        """Let these hotkeys (SS58) call, beside those of the settings. Raises ConfigError for a malformed address."""
        callers = self.settings.callers
        allowed = msgspec.structs.replace(callers, allowed=(*callers.allowed, *addresses))
        self.settings = kit_settings.checked(msgspec.structs.replace(self.settings, callers=allowed), "--allow")

    def post(self, path: str) -> Callable[[H], H]:
        """Answer POST of `path` with the decorated handler.

        Raises TypeError for one without types, ValueError for a path that is none or is taken.
        """
        return lambda handler: self._add("POST", path, handler)

    def get(self, path: str) -> Callable[[H], H]:
        """Answer GET of `path` with the decorated handler. Raises as `post` does."""
        return lambda handler: self._add("GET", path, handler)

    def _add(self, method: Method, path: str, handler: H) -> H:
        if _PATH.fullmatch(path) is None:
            raise ValueError(f"{path!r} is no path: write one as /inference, without parameters")
        taken = {(row.method, row.path) for row, _ in self._rows}
        if (method, path) in taken | {(_CVM.method, _CVM.path), (_HEALTH.method, _HEALTH.path)}:
            raise ValueError(f"{method} {path} is answered already; take another path")
        request, answer = _types(handler, takes_body=method == "POST")
        summary = inspect.getdoc(handler) or handler.__name__
        success: Response[Any] = Response(200, "The answer.", answer)
        max_values = self.settings.serve.max_body_bytes
        row: Route[Any, Any] = Route(
            handler.__name__, method, path, summary, request, success, callers=SIGNED, hot=True, max_values=max_values
        )
        self._rows.append((row, handler))
        return handler

    def app(self, *, clock: Clock, ids: Ids, metrics: Metrics, chain: ChainView, started_ms: int | None = None) -> App:
        """Return the application; requests stamped before `started_ms` (unix ms; None: now) are refused."""
        serve = self.settings.serve
        app = new_app(
            "miner",
            settings=HttpSettings(),
            clock=clock,
            ids=ids,
            metrics=metrics,
            max_body_bytes=serve.max_body_bytes,
        )
        callers = Callers(self.settings, chain, clock, started_ms=started_ms)
        limiter = RateLimiter(serve.requests_per_minute_per_caller, WINDOW_S, now=clock.monotonic)
        endpoints: Endpoints[Caller] = Endpoints(Router(app), MinerSurface(callers, limiter))
        offer = Offer(self.settings.offer, self.settings.miner.hotkey, GpuReader())

        async def cvm(call: Call[CvmRequest, Caller]) -> CvmInfo:
            return await offer.answer(call.request)

        endpoints.bind(_CVM, cvm)
        endpoints.bind_fixed(_HEALTH, MinerHealth(status="ok"))
        for row, handler in self._rows:
            endpoints.bind(row, _called(row, handler))
        return app


def _called(row: Route[Any, Any], handler: AnyHandler) -> Callable[[Call[Any, Caller]], Awaitable[Any]]:
    async def call_handler(call: Call[Any, Caller]) -> Any:
        return await (handler(call.caller, call.request) if row.takes_body else handler(call.caller))

    return call_handler


def _types(handler: AnyHandler, *, takes_body: bool) -> tuple[type[Any], type[Any]]:
    hints = typing.get_type_hints(inspect.unwrap(handler))
    names = list(inspect.signature(handler).parameters)
    wanted = "(caller: Caller, request: YourStruct) -> Answer" if takes_body else "(caller: Caller) -> Answer"
    if len(names) != 1 + takes_body or any(name not in hints for name in [*names, "return"]):
        raise TypeError(f"{handler.__name__} must be `async def {handler.__name__}{wanted}`, with its types")
    return (hints[names[1]] if takes_body else NoBody), hints["return"]
