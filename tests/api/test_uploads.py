"""Rows that declare a body which is read as it comes, over a real server and socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

from config.model import HttpSettings
from engram.api import openapi
from engram.api.call import Call, Surface
from engram.api.route import NoBody, Response, Route
from engram.api.serving import Endpoints
from engram.http.errors import ApiError
from engram.http.router import Router
from tests.http.harness import SETTINGS, Raw, connect, get, make_app, post, serving

LIMIT = 100_000


class Counted(msgspec.Struct, frozen=True):
    bytes: int


UPLOAD = Route("upload", "POST", "/files/{name}", "Store", NoBody, Response(200, "", Counted), upload="text/csv")
WHOLE = Route("whole", "POST", "/whole", "Count", NoBody, Response(200, "", Counted))


class Handler:
    """Tells of each part; ends as the test wants it."""

    def __init__(self) -> None:
        self.parts, self._told = trio.open_memory_channel[bytes](100)[::-1]
        self.ended: trio.Event = trio.Event()
        self.error: ApiError | None = None
        self.stop_at = LIMIT + 1
        self.watches = False

    async def upload(self, call: Call[NoBody, None]) -> Counted:
        seen = 0
        try:
            async for part in call.parts:
                seen += len(part)
                await self._told.send(part)
                if seen >= self.stop_at:
                    break
            if self.watches:
                await call.parts.client_left()
        except ApiError as error:
            self.error = error
            raise
        finally:
            self.ended.set()
        return Counted(seen)


async def whole(call: Call[NoBody, None]) -> Counted:
    with pytest.raises(LookupError):
        _ = call.parts
    return Counted(len(call.http.body))


@asynccontextmanager
async def uploading(settings: HttpSettings = SETTINGS) -> AsyncIterator[tuple[Handler, Raw]]:
    app, handler = make_app(msgspec.structs.replace(settings, max_body_bytes=LIMIT)), Handler()
    endpoints = Endpoints(Router(app), Surface[None]())
    endpoints.bind(UPLOAD, handler.upload)
    endpoints.bind(WHOLE, whole)
    with trio.fail_after(10):
        async with serving(app, settings) as running, connect(running) as client:
            yield handler, client


def begun(length: int, *headers: str) -> bytes:
    lines = ["POST /files/x HTTP/1.1", "Host: test", f"Content-Length: {length}", *headers, "", ""]
    return "\r\n".join(lines).encode()


async def test_a_handler_gets_each_part_before_the_next_is_sent() -> None:
    async with uploading() as (handler, client):
        await client.send(begun(9))
        for part in (b"abc", b"def", b"ghi"):
            await client.send(part)
            assert await handler.parts.receive() == part
        assert (await client.read("POST")).json() == {"bytes": 9}
        assert (await client.ask(post(b"12", "/whole"), "POST")).json() == {"bytes": 2}


async def test_a_body_in_chunks_is_read_so_too_and_one_that_is_empty_has_no_part() -> None:
    async with uploading() as (_, client):
        head = b"POST /files/x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert (await client.ask(head + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", "POST")).json() == {"bytes": 3}
        assert (await client.ask(begun(0), "POST")).json() == {"bytes": 0}


async def test_an_answer_may_come_before_the_body_has_ended() -> None:
    async with uploading() as (handler, client):
        handler.stop_at = 3
        await client.send(begun(LIMIT))
        await client.send(b"abc")
        answer = await client.read("POST")
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert handler.ended.is_set()


async def test_a_client_that_leaves_within_the_body_ends_the_handler_at_once() -> None:
    async with uploading() as (handler, client):
        await client.send(begun(9) + b"abc")
        assert await handler.parts.receive() == b"abc"
        await client.stream.aclose()
        await handler.ended.wait()
        assert handler.error is not None
        assert (handler.error.status, handler.error.code) == (400, "incomplete_body")


async def test_a_client_that_leaves_after_the_body_is_told_at_once() -> None:
    async with uploading() as (handler, client):
        handler.watches = True
        await client.send(begun(3) + b"abc")
        assert await handler.parts.receive() == b"abc"
        await client.stream.aclose()
        await handler.ended.wait()
        assert handler.error is None


async def test_the_client_is_waited_for_only_after_the_body() -> None:
    async with uploading() as (handler, client):
        handler.stop_at, handler.watches = 1, True
        assert (await client.ask(begun(3) + b"ab", "POST")).code == "internal"


@pytest.mark.parametrize("declared", [True, False])
async def test_the_surfaces_bound_holds(declared: bool) -> None:
    async with uploading() as (handler, client):
        if declared:
            await client.send(begun(LIMIT + 1))
        else:
            await client.send(b"POST /files/x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
            await client.send(b"%x\r\n%b\r\n" % (LIMIT, b"x" * LIMIT) + b"1\r\nx\r\n")
        answer = await client.read("POST")
        assert (answer.status, answer.code) == (413, "body_too_large")
        assert handler.ended.is_set() is not declared


async def test_a_compressed_body_is_refused_before_the_handler_runs() -> None:
    async with uploading() as (handler, client):
        answer = await client.ask(begun(3, "Content-Encoding: gzip") + b"abc", "POST")
        assert (answer.status, answer.code) == (415, "unsupported_encoding")
        assert not handler.ended.is_set()


async def test_a_part_that_does_not_come_is_given_up() -> None:
    async with uploading(msgspec.structs.replace(SETTINGS, body_timeout_s=0.2)) as (handler, client):
        await client.send(begun(9) + b"abc")
        assert await handler.parts.receive() == b"abc"
        assert (await client.read("POST")).status == 408


async def test_other_methods_of_its_path_are_answered_as_everywhere() -> None:
    async with uploading() as (_, client):
        assert (await client.ask(get("/files/x"))).status == 405


async def test_a_row_that_reads_its_body_in_parts_decodes_nothing() -> None:
    endpoints = Endpoints(Router(make_app()), Surface[None]())

    async def handler(_: Call[Any, None]) -> Counted:
        raise NotImplementedError

    with pytest.raises(ValueError, match="upload reads its body as it comes"):
        endpoints.bind(msgspec.structs.replace(UPLOAD, request=Counted), handler)


def test_the_document_names_the_type_of_such_a_body() -> None:
    document = msgspec.json.decode(openapi.document([UPLOAD], {"title": "t", "version": "1"}))
    described = document["paths"]["/files/{name}"]["post"]["requestBody"]
    assert described == {"required": True, "content": {"text/csv": {"schema": {"type": "string", "format": "binary"}}}}
