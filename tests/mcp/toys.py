"""A small server for tests: an echo, a failure, a fault, a slow tool, a large answer; one resource."""

from typing import Annotated, Any

import msgspec
import trio
from msgspec import Meta

from engram.mcp import Caller, Catalog, Dispatcher, Resource, ServerInfo, Template, Tool, ToolFailed
from engram.mcp.model import CAPABILITIES_KEY, LOCAL, VERSION_KEY

NEW = "2026-07-28"
OLD = "2025-11-25"


class Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is said."""

    text: Annotated[str, Meta(max_length=100)]
    times: Annotated[int, Meta(ge=1, le=10_000_000)] = 1


class Heard(msgspec.Struct, frozen=True):
    """What was heard, and by whom."""

    text: str
    key: str | None = None


async def echo(said: Said, caller: Caller) -> Heard:
    return Heard(said.text * said.times, None if caller.key is None else caller.key.hex())


async def fail(said: Said, _: Caller) -> Heard:
    raise ToolFailed(f"{said.text} cannot be done; try something else")


async def break_(said: Said, _: Caller) -> Heard:
    raise RuntimeError("a secret cause")


async def sleep(said: Said, _: Caller) -> Heard:
    await trio.sleep_forever()
    raise AssertionError


async def read(uri: str, _: Caller) -> object | None:
    return {"at": uri} if uri.startswith("toy://") else None


def tool(name: str, run: Any, scope: Any = "read") -> Tool[Said, Heard]:
    return Tool(name=name, title=name, description=name, takes=Said, gives=Heard, run=run, scope=scope)


CATALOG = Catalog(
    info=ServerInfo(name="toys", version="1"),
    instructions="Toys.",
    tools=(
        tool("echo", echo),
        tool("fail", fail),
        tool("break", break_),
        tool("sleep", sleep),
        tool("write", echo, "write"),
    ),
    resources=(Resource(uri="toy://one", name="one", title="One", description="One."),),
    templates=(Template(uri_template="toy://{name}", name="toys", title="Toys", description="Toys."),),
    read=read,
)


def request(method: str, params: dict[str, Any] | None = None, *, new: bool = False, id: Any = 7) -> bytes:
    given = dict(params or {})
    if new:
        given["_meta"] = {VERSION_KEY: NEW, CAPABILITIES_KEY: {}}
    return msgspec.json.encode({"jsonrpc": "2.0", "id": id, "method": method, "params": given})


def call(name: str, arguments: object = None, *, new: bool = False, id: Any = 7) -> bytes:
    return request(
        "tools/call", {"name": name, "arguments": {"text": "hi"} if arguments is None else arguments}, new=new, id=id
    )


class Toys:
    """The dispatcher, and what it measured."""

    def __init__(self) -> None:
        self.measured: list[tuple[str, str]] = []
        self.dispatcher = Dispatcher(CATALOG, lambda method, outcome, _: self.measured.append((method, outcome)))

    async def ask(self, line: bytes, caller: Caller = LOCAL, headers: Any = None) -> tuple[int, Any]:
        answered = await self.dispatcher.answer(line, caller, headers)
        return answered.status, None if answered.body is None else msgspec.json.decode(answered.body)
