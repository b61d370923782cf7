"""Surfaces behind Quart: for handlers that are written for the framework, and rows that are not hot.

Handlers are Quart's; `exchange` has what they need of the request in addition. Expected refusals are raised as
ApiError; any other exception of a handler becomes a 500 with a request id and is logged with its cause.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Unpack, cast, final

import structlog
from quart import Response
from quart import request as quart_request
from quart.wrappers.response import DataBody
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from quart_trio.wrappers import TrioRequest, TrioResponse
from werkzeug.exceptions import BadRequest, HTTPException

from engram.http import exchange
from engram.http.app import App, Given, equip
from engram.http.asgi import error_body, header_lines, respond
from engram.http.errors import CODES, TEXTS, ApiError
from engram.http.request import Handler, Request, Stream

_log = structlog.get_logger("engram.http")


@final
class QuartApp(App, QuartTrio):
    """A Quart application behind an Edge."""

    def add_view(self, rule: str, method: str, name: str, handler: Handler) -> bool:
        """Serve `rule`, in Quart's syntax, with `handler`; return True."""
        self.add_url_rule(rule, name, _view(handler), methods=[method])
        return True

    async def make_response(self, result: Any) -> Any:
        """As Quart's; a handler may return a Stream too."""
        return _StreamResponse(result) if isinstance(result, Stream) else await super().make_response(result)


def new_quart_app(name: str, **given: Unpack[Given]) -> QuartApp:
    """Return a surface as `new_app` does, whose requests go to Quart. Raises ValueError as it does."""
    app = QuartApp(name, static_folder=None)
    equip(app, app.asgi_app, name, **given)
    app.config["MAX_CONTENT_LENGTH"] = given.get("max_body_bytes") or given["settings"].max_body_bytes
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.merge_slashes = False  # otherwise Quart redirects to whatever host the request names
    app.json.sort_keys = False  # type: ignore[attr-defined]  # DefaultJSONProvider's
    app.asgi_http_class = _HttpConnection
    app.request_class = _Request
    app.register_error_handler(ApiError, _on_api_error)
    app.register_error_handler(HTTPException, _on_http_exception)
    app.register_error_handler(Exception, _on_exception)
    return app


def _view(handler: Handler) -> Callable[..., Awaitable[Response]]:
    async def view(**parameters: str) -> Response:
        scope: Any = quart_request.scope
        answered = await handler(Request(scope, parameters))
        if isinstance(answered, Stream):
            return cast(Response, answered)  # App.make_response takes it
        response = Response(answered.body, answered.status, content_type=answered.media or None)
        if not answered.media:
            response.headers.pop("Content-Type", None)
        for name, value in answered.headers:
            response.headers.add(name, value)
        return response

    return view


@final
class _Request(TrioRequest):
    async def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """As Quart's, except that a body that is not UTF-8 or nested too deeply is a 400 and not a 500."""
        try:
            return await super().get_json(force, silent, cache)
        except (UnicodeDecodeError, RecursionError):
            if silent:
                return None
            raise BadRequest("the body is not JSON") from None


@final
class _HttpConnection(TrioASGIHTTPConnection):
    """Runs Quart on a request whose body has been read already.

    quart-trio runs two tasks for a request, one of which waits for the client to disconnect and then cancels the other.
    Here a handler is never cancelled: it finishes whether or not the client is still there. Only streams watch for the
    client.
    """

    app: QuartApp

    async def __call__(self, receive: Any, send: Any) -> None:
        current = exchange.of(cast(Any, self.scope))
        request = self._create_request_from_scope(send)
        request.body.append(current.body)
        request.body.set_complete()
        response = await self.app.handle_request(request)
        if request.url_rule is not None:
            current.route = request.url_rule.rule
        if isinstance(response, _StreamResponse):
            await self.app.stream(response.stream, self.scope["method"], receive, send, header_lines(response.headers))
        elif isinstance(response, Response) and isinstance(response.response, DataBody):
            response.headers.pop("Content-Length", None)
            await respond(send, response.status_code, bytes(response.response.data), header_lines(response.headers))
        else:
            await self._send_response(send, response)


@final
class _StreamResponse(TrioResponse):
    """Carries a Stream through Quart."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(b"", 200, headers=stream.headers)
        self.headers.pop("Content-Length", None)
        self.stream = stream


async def _on_api_error(error: ApiError) -> Response:
    body = error_body(error.message, error.code, exchange.request_id(), error.extra)
    response = Response(body, error.status, content_type="application/json")
    for name, value in error.headers:
        response.headers.add(name, value)
    return response


async def _on_http_exception(error: HTTPException) -> Response:
    status = error.code or 500
    if status < 400:
        return cast(Response, error.get_response())
    code = CODES.get(status, "refused" if status < 500 else "internal")
    refusal = ApiError(status, code, TEXTS.get(status) or error.description or error.name)
    response = await _on_api_error(refusal)
    if (allowed := getattr(error, "valid_methods", None)) is not None:
        response.headers["Allow"] = ", ".join(sorted(allowed))
    return response


async def _on_exception(error: Exception) -> Response:
    _log.error("request_failed", exc_info=error)
    return await _on_api_error(ApiError(500, "internal", "internal error; quote the request id"))
