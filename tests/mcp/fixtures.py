"""The conformance suite's own fixtures on our server, where it can have them: tools and resources by fixed names."""

import base64
import re
from typing import Any, Final

import msgspec

from engram.mcp import Caller, Catalog, Dispatcher, Resource, ServerInfo, Template, Tool, ToolFailed
from engram.mcp.catalog import Content, Document

PIXEL: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
SILENCE: Final = base64.b64encode(
    b"RIFF" + (36).to_bytes(4, "little") + b"WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x40\x1f\0\0\1\0\x08\0data\0\0\0\0"
).decode()
_TEMPLATE: Final = re.compile(r"test://template/([^/]+)/data")


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No arguments."""


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def resource(uri: str, mime: str, words: str) -> dict[str, Any]:
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime, "text": words}}


IMAGE: Final = {"type": "image", "data": PIXEL, "mimeType": "image/png"}
AUDIO: Final = {"type": "audio", "data": SILENCE, "mimeType": "audio/wav"}
GIVEN: Final[dict[str, list[dict[str, Any]]]] = {
    "test_simple_text": [text("This is a simple text response for testing.")],
    "test_image_content": [IMAGE],
    "test_audio_content": [AUDIO],
    "test_embedded_resource": [
        resource("test://embedded-resource", "text/plain", "This is an embedded resource content.")
    ],
    "test_multiple_content_types": [
        text("Multiple content types test:"),
        IMAGE,
        resource("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
    ],
}


def giving(name: str, blocks: list[dict[str, Any]]) -> Tool[Nothing, Content]:
    async def run(_: Nothing, __: Caller) -> Content:
        return Content(blocks)

    return Tool(name=name, title=name, description=name, takes=Nothing, gives=Content, run=run)


async def fail(_: Nothing, __: Caller) -> Content:
    raise ToolFailed("This tool intentionally returns an error for testing")


async def read(uri: str, _: Caller) -> object | None:
    if uri == "test://static-text":
        return Document(mime="text/plain", text="This is the content of the static text resource.")
    if uri == "test://static-binary":
        return Document(mime="image/png", octets=base64.b64decode(PIXEL))
    if (found := _TEMPLATE.fullmatch(uri)) is not None:
        return {"id": found[1], "templateTest": True, "data": f"Data for ID: {found[1]}"}
    return None


def named(uri: str) -> Resource:
    return Resource(uri=uri, name=uri.rpartition("/")[2], title=uri, description=uri)


FIXTURES: Final = Catalog(
    info=ServerInfo(name="fixtures", version="1"),
    instructions="Fixtures of the conformance suite.",
    tools=(
        *(giving(name, blocks) for name, blocks in GIVEN.items()),
        Tool(name="test_error_handling", title="Error", description="Fails.", takes=Nothing, gives=Content, run=fail),
    ),
    resources=(named("test://static-text"), named("test://static-binary")),
    templates=(
        Template(uri_template="test://template/{id}/data", name="template", title="Template", description="By id."),
    ),
    read=read,
)


def dispatcher() -> Dispatcher:
    """Return the server with the fixtures."""
    return Dispatcher(FIXTURES)
