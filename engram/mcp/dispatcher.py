"""Answers the messages of agents, whichever way they came. Keeps nothing between two of them.

`answer` returns the bytes of the response, None for what has none (notifications). A tool's failure is a result that
the agent reads (`isError`); only what is wrong with the protocol is a JSON-RPC error. Answers, time and concurrency
are bounded.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, final

import msgspec
import trio

from engram.mcp import rules
from engram.mcp.catalog import (
    LIST_TTL_MS,
    Catalog,
    Content,
    Document,
    Tool,
    arguments,
    shown_resource,
    shown_template,
    shown_tool,
)
from engram.mcp.model import (
    BUSY,
    DENIED,
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    RESOURCE_NOT_FOUND,
    SERVER_KEY,
    STATUS,
    SUPPORTED,
    UNSUPPORTED_VERSION,
    Caller,
    McpError,
    Message,
    RequestId,
    ToolFailed,
)

MAX_ANSWER_BYTES: Final = 4_194_304
MAX_MESSAGE_BYTES: Final = 1_048_576
CALL_S: Final = 60.0
CALLS_AT_ONCE: Final = 64

_log = logging.getLogger("engram.mcp")
"""The standard library's, which the process's log takes in: structlog would cost each agent's computer 7 MB."""

Measure = Callable[[str, str, float], None]
"""Takes method, outcome (`ok`, `failed`, `refused`) and seconds."""


class Answered(msgspec.Struct, frozen=True):
    """A response, and the HTTP status that it has."""

    body: bytes | None
    status: int


@final
class Dispatcher:
    """One server's methods."""

    def __init__(self, catalog: Catalog, measure: Measure = lambda method, outcome, seconds: None) -> None:
        self._catalog = catalog
        self._measure = measure
        self._tools = {tool.name: tool for tool in catalog.tools}
        self._shown = {tool.name: shown_tool(tool) for tool in catalog.tools}
        self._room = trio.CapacityLimiter(CALLS_AT_ONCE)
        self._methods: dict[str, Callable[[dict[str, Any], Caller], Awaitable[dict[str, object]]]] = {
            "tools/list": self._list_tools,
            "tools/call": self._call_tool,
        }
        if catalog.read is not None:
            self._methods |= {
                "resources/list": self._list_resources,
                "resources/templates/list": self._list_templates,
                "resources/read": self._read_resource,
            }

    @property
    def methods(self) -> tuple[str, ...]:
        """The words by which requests are measured."""
        return (*self._methods, *_OTHER, "other")

    async def answer(self, line: bytes, caller: Caller, headers: list[tuple[str, str]] | None = None) -> Answered:
        """Answer one message of a caller; `headers` are those of its HTTP request, None on standard input."""
        try:
            message = rules.read(line)
        except McpError as error:
            return Answered(_error(None, error), STATUS.get(error.code, 400))
        return await self.respond(message, caller, headers)

    async def respond(self, message: Message, caller: Caller, headers: list[tuple[str, str]] | None = None) -> Answered:
        """Answer one message that was decoded."""
        version = None if headers is None else dict(headers).get(rules.VERSION_HEADER)
        stateless = rules.is_stateless(message, version)
        if isinstance(message.method, msgspec.UnsetType) or isinstance(message.id, msgspec.UnsetType):
            return self._unanswered(message, version, stateless=stateless)
        assert message.id is not None, "rules.read refuses it"
        method = message.method if message.method in self._methods else _OTHER.get(message.method, "other")
        began = trio.current_time()
        try:
            if stateless:
                rules.check_stateless(message, headers)
            elif version is not None and version not in SUPPORTED and message.method != "initialize":
                raise rules.unsupported(version)
            result = await self._result(message, caller, stateless=stateless)
        except McpError as error:
            self._measure(method, "refused", trio.current_time() - began)
            if stateless and error.code == RESOURCE_NOT_FOUND:
                error = McpError(INVALID_PARAMS, error.message, error.data)
            protocol = error.code in (HEADER_MISMATCH, UNSUPPORTED_VERSION, DENIED, BUSY)
            return Answered(_error(message.id, error), STATUS.get(error.code, 200) if stateless or protocol else 200)
        body = _result(message.id, result)
        outcome = "failed" if result.get("isError") or len(body) > MAX_ANSWER_BYTES else "ok"
        self._measure(method, outcome, trio.current_time() - began)
        if len(body) > MAX_ANSWER_BYTES:
            text = f"the answer has {len(body)} bytes, at most {MAX_ANSWER_BYTES} are sent: ask for less"
            return Answered(_error(message.id, McpError(INTERNAL_ERROR, text)), 200)
        return Answered(body, 200)

    def _unanswered(self, message: Message, version: str | None, *, stateless: bool) -> Answered:
        """Take a notification, or a response to a request that was never made."""
        if isinstance(message.method, msgspec.UnsetType) and stateless:
            return Answered(_error(None, McpError(INVALID_REQUEST, "this server asks nothing: a response")), 400)
        if version is not None and version not in SUPPORTED:
            return Answered(_error(None, rules.unsupported(version)), 400)
        return Answered(None, 202)

    async def _result(self, message: Message, caller: Caller, *, stateless: bool) -> dict[str, object]:
        params = {} if isinstance(message.params, msgspec.UnsetType) else message.params
        info = msgspec.to_builtins(self._catalog.info)
        match message.method:
            case "initialize" if not stateless:
                return {
                    "protocolVersion": rules.negotiated(params.get("protocolVersion")),
                    "capabilities": self._capabilities(),
                    "serverInfo": info,
                    "instructions": self._catalog.instructions,
                }
            case "ping" if not stateless:
                return {}
            case "server/discover" if stateless:
                result = {
                    "supportedVersions": list(SUPPORTED),
                    "capabilities": self._capabilities(),
                    "instructions": self._catalog.instructions,
                    "ttlMs": LIST_TTL_MS,
                    "cacheScope": "public",
                }
            case _ if (method := self._methods.get(str(message.method))) is not None:
                result = await self._bounded(method, params, caller)
            case _:
                raise McpError(METHOD_NOT_FOUND, f"there is no method {str(message.method)[:100]!r}")
        if not stateless:
            result.pop("ttlMs", None)
            result.pop("cacheScope", None)
            return result
        return {"resultType": "complete", "_meta": {SERVER_KEY: info}, **result}

    async def _bounded(
        self,
        method: Callable[[dict[str, Any], Caller], Awaitable[dict[str, object]]],
        params: dict[str, Any],
        caller: Caller,
    ) -> dict[str, object]:
        if self._room.available_tokens < 1:
            raise McpError(BUSY, f"{CALLS_AT_ONCE} calls are in progress: try again in a moment")
        try:
            async with self._room:
                with trio.fail_after(CALL_S):
                    return await method(params, caller)
        except trio.TooSlowError:
            raise McpError(INTERNAL_ERROR, f"no answer within {CALL_S:g} s; it may still be carried out") from None
        except McpError:
            raise
        except Exception:  # noqa: BLE001  # a fault of one call must not end the server of all others
            _log.exception("a method of the MCP server %s failed", self._catalog.info.name)
            raise McpError(INTERNAL_ERROR, "internal error; the server's log has its cause") from None

    def _capabilities(self) -> dict[str, object]:
        offered: dict[str, object] = {"tools": {"listChanged": False}}
        if self._catalog.read is not None:
            offered["resources"] = {"subscribe": False, "listChanged": False}
        return offered

    def _cached(self) -> dict[str, object]:
        return {"ttlMs": LIST_TTL_MS, "cacheScope": "public" if self._catalog.is_public else "private"}

    async def _list_tools(self, params: dict[str, Any], caller: Caller) -> dict[str, object]:
        _no_cursor(params)
        shown = [self._shown[tool.name] for tool in self._catalog.tools if tool.scope in caller.scopes]
        return {"tools": shown, **self._cached()}

    async def _list_resources(self, params: dict[str, Any], caller: Caller) -> dict[str, object]:
        _no_cursor(params)
        return {"resources": [shown_resource(each) for each in self._catalog.resources], **self._cached()}

    async def _list_templates(self, params: dict[str, Any], caller: Caller) -> dict[str, object]:
        _no_cursor(params)
        return {"resourceTemplates": [shown_template(each) for each in self._catalog.templates], **self._cached()}

    async def _read_resource(self, params: dict[str, Any], caller: Caller) -> dict[str, object]:
        uri = params.get("uri")
        if not isinstance(uri, str):
            raise McpError(INVALID_PARAMS, "params.uri must be the URI of a resource")
        if "read" not in caller.scopes:
            raise McpError(DENIED, "this token has not the scope read")
        assert self._catalog.read is not None
        try:
            found = await self._catalog.read(uri, caller)
        except ToolFailed as failed:
            raise McpError(INTERNAL_ERROR, str(failed)) from None
        if found is None:
            raise McpError(RESOURCE_NOT_FOUND, "there is no resource of this URI", {"uri": uri[:1_000]})
        document = found if isinstance(found, Document) else Document(mime="application/json", text=_json(found))
        scope = "public" if self._catalog.is_public else "private"
        content: dict[str, object] = {"uri": uri, "mimeType": document.mime}
        if document.octets is not None:
            content["blob"] = document.octets  # encoded as base64
        else:
            content["text"] = document.text or ""
        return {"contents": [content], "ttlMs": 0, "cacheScope": scope}

    async def _call_tool(self, params: dict[str, Any], caller: Caller) -> dict[str, object]:
        name, given = params.get("name"), params.get("arguments", {})
        tool = self._tools.get(name) if isinstance(name, str) else None
        if tool is None:
            raise McpError(INVALID_PARAMS, f"Unknown tool: {str(name)[:100]}")
        if tool.scope not in caller.scopes:
            raise McpError(DENIED, f"{tool.name} needs the scope {tool.scope}, which this token has not")
        if not isinstance(given, dict):
            raise McpError(INVALID_PARAMS, "params.arguments must be an object")
        return await _called(tool, given, caller)


async def _called(tool: Tool[Any, Any], given: dict[str, Any], caller: Caller) -> dict[str, object]:
    try:
        found = await tool.run(arguments(tool, given), caller)
    except (msgspec.ValidationError, ToolFailed) as failed:
        return {"content": [{"type": "text", "text": str(failed)}], "isError": True}
    if isinstance(found, Content):
        return {"content": found.blocks, "isError": False}
    text = _json(found)
    return {
        "content": [{"type": "text", "text": text}],
        "structuredContent": msgspec.Raw(text),
        "isError": False,
    }


def _json(document: object) -> str:
    return msgspec.json.encode(document).decode()


def _no_cursor(params: dict[str, Any]) -> None:
    """Refuse a cursor, since no list has a second page."""
    if params.get("cursor") is not None:
        raise McpError(INVALID_PARAMS, "params.cursor is not one of this server's: lists have one page")


def _result(request_id: RequestId, result: dict[str, object]) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "result": result})


def _error(request_id: RequestId | None, error: McpError) -> bytes:
    shown: dict[str, object] = {"code": error.code, "message": error.message}
    if error.data is not None:
        shown["data"] = error.data
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "error": shown})


_OTHER: Final = {name: name for name in ("initialize", "ping", "server/discover")}
