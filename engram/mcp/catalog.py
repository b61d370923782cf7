"""What a server offers: tools with typed arguments, and resources. Schemas are made from the argument types."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

from engram import wire
from engram.mcp.model import Caller, Scope, ServerInfo

A = TypeVar("A", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)

LIST_TTL_MS: Final = 60_000
"""For so long a client may keep what it was told of tools and resources."""


class Tool(msgspec.Struct, Generic[A, R], frozen=True, kw_only=True):
    """A function that an agent may call."""

    name: str
    title: str
    description: str
    takes: type[A]
    """Its arguments; a Struct that forbids unknown fields."""
    gives: type[R]
    run: Callable[[A, Caller], Awaitable[R]]
    """Raises ToolFailed with what the agent is to read."""
    scope: Scope = "read"
    destructive: bool = False
    idempotent: bool = True


class Content(msgspec.Struct, frozen=True):
    """What a tool gives that is for reading and has no schema: blocks of text, images or resources, as MCP has them."""

    blocks: list[dict[str, Any]]


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A resource that is no JSON."""

    mime: str
    text: str | None = None
    octets: bytes | None = None


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """A document that an agent may read by its URI."""

    uri: str
    name: str
    title: str
    description: str


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A family of documents, by a URI template."""

    uri_template: str
    name: str
    title: str
    description: str


class Catalog(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one server offers."""

    info: ServerInfo
    instructions: str
    tools: Sequence[Tool[Any, Any]]
    resources: Sequence[Resource] = ()
    templates: Sequence[Template] = ()
    read: Callable[[str, Caller], Awaitable[object | None]] | None = None
    """Returns the Document of a URI, or an object that is encoded as JSON; None where there is none.
    Raises ToolFailed where that cannot be known."""
    is_public: bool = False
    """Whether every caller is shown the same; what is not may be cached for one caller alone."""


def shown_tool(tool: Tool[Any, Any]) -> dict[str, object]:
    """Return a tool as `tools/list` shows it."""
    output = {} if issubclass(tool.gives, Content) else {"outputSchema": schema(tool.gives)}
    return {
        "name": tool.name,
        "title": tool.title,
        "description": tool.description,
        "inputSchema": schema(tool.takes),
        **output,
        "annotations": {
            "title": tool.title,
            "readOnlyHint": tool.scope == "read",
            "destructiveHint": tool.destructive,
            "idempotentHint": tool.idempotent,
            "openWorldHint": False,
        },
    }


def shown_resource(resource: Resource) -> dict[str, object]:
    """Return a resource as `resources/list` shows it."""
    about = {"title": resource.title, "description": resource.description}
    return {"uri": resource.uri, "name": resource.name, **about, "mimeType": "application/json"}


def shown_template(template: Template) -> dict[str, object]:
    """Return a template as `resources/templates/list` shows it."""
    about = {"title": template.title, "description": template.description}
    return {"uriTemplate": template.uri_template, "name": template.name, **about, "mimeType": "application/json"}


def schema(type_: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the JSON Schema of a Struct with `type: object` at its root, as tools need it."""
    _, found = msgspec.json.schema_components((type_,), ref_template="#/$defs/{name}", schema_hook=_anything)
    own: dict[str, Any] = dict(found.pop(type_.__name__))
    return own | {"$defs": found} if found else own


def arguments(tool: Tool[A, Any], given: Mapping[str, Any]) -> A:
    """Return a tool's arguments. Raises msgspec.ValidationError, whose text names the argument."""
    return wire.convert(given, tool.takes)


def _anything(type_: type) -> dict[str, Any]:
    """Return the schema of `object`, which is any value; msgspec knows that of `Any` alone."""
    if type_ is not object:
        raise NotImplementedError(type_)
    return {"description": "Any value."}  # an empty schema counts as none with msgspec
