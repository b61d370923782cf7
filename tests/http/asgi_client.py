"""A client that calls an application without a socket, for tests of what its endpoints answer."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlencode

import msgspec
import trio
from werkzeug.datastructures import Headers

from engram.http.app import App
from engram.http.asgi import header_lines
from engram.http.cycle import HUNG_UP, STREAM


class Answered:
    """A whole answer."""

    def __init__(self, status_code: int, headers: Headers, body: bytes) -> None:
        self.status_code = status_code
        self.headers = headers
        self.mimetype = headers.get("Content-Type", "").partition(";")[0]
        self._body = body

    async def get_data(self, as_text: bool = False) -> Any:
        return self._body.decode() if as_text else self._body

    async def get_json(self) -> Any:
        return msgspec.json.decode(self._body)


class AsgiClient:
    """Calls one application."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def get(self, path: str, **more: Any) -> Answered:
        return await self.open(path, method="GET", **more)

    async def head(self, path: str, **more: Any) -> Answered:
        return await self.open(path, method="HEAD", **more)

    async def post(self, path: str, **more: Any) -> Answered:
        return await self.open(path, method="POST", **more)

    async def put(self, path: str, **more: Any) -> Answered:
        return await self.open(path, method="PUT", **more)

    async def patch(self, path: str, **more: Any) -> Answered:
        return await self.open(path, method="PATCH", **more)

    async def delete(self, path: str, **more: Any) -> Answered:
        return await self.open(path, method="DELETE", **more)

    async def open(
        self,
        path: str,
        *,
        method: str,
        headers: Mapping[str, str] | None = None,
        data: bytes | str = b"",
        json: object = msgspec.UNSET,
        query_string: Mapping[str, Any] | None = None,
    ) -> Answered:
        """Send a request and return its answer."""
        body = data.encode() if isinstance(data, str) else data
        lines = [(b"host", b"localhost"), *header_lines((headers or {}).items())]
        if json is not msgspec.UNSET:
            body = msgspec.json.encode(json)
            lines.append((b"content-type", b"application/json"))
        if body:
            lines.append((b"content-length", b"%d" % len(body)))
        if query_string is not None:
            path = f"{path}?{urlencode(query_string)}"
        raw_path, _, query = quote(path, safe="%/:?&=+,;@!$'()*~#[]").encode().partition(b"?")
        parts: list[bytes] = []
        begun: dict[str, Any] = {}

        waiting = [body]

        async def receive() -> dict[str, Any]:
            if not waiting:
                await trio.sleep_forever()  # the client stays
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                begun.update(message)
            else:
                parts.append(message.get("body", b""))

        async def stays() -> None:
            raise AssertionError("nobody hangs up here")

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": method,
            "path": unquote_to_bytes(raw_path).decode("utf-8", "replace"),
            "raw_path": raw_path,
            "query_string": query,
            "headers": lines,
            "client": ("127.0.0.1", 1),
            "server": ("localhost", 80),
            "extensions": {STREAM: lambda: None, HUNG_UP: stays},
        }
        await self._app(scope, receive, send)
        found = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in begun["headers"]])
        return Answered(begun["status"], found, b"" if method == "HEAD" else b"".join(parts))
