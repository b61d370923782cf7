"""A row and its handler, served through Quart, past it and without it: nothing but the way differs."""

from typing import Any, Literal

import msgspec
import pytest
import trio

from engram.api.call import Call, Reply, Surface, encoded
from engram.api.route import NoBody, Parameter, Response, Route
from engram.api.serving import Endpoints
from engram.http.app import App
from engram.http.errors import ApiError
from engram.http.request import Answer, Stream
from engram.http.router import Router
from engram.http.sse import EventSink, event_stream
from tests.http.asgi_client import AsgiClient
from tests.http.harness import make_app, make_plain_app

Way = Literal["quart", "hot", "plain"]
WAYS = pytest.mark.parametrize("way", ["quart", "hot", "plain"])


class Order(msgspec.Struct, frozen=True):
    hours: float
    note: str = ""


class Sold(msgspec.Struct, frozen=True):
    hours: float
    to: str
    by: str = ""


class House(Surface[str]):
    """Callers name themselves; every answer is marked."""

    async def identify(self, call: Call[Any, str]) -> str | None:
        name = call.header("X-Name")
        if name is None:
            raise ApiError(401, "stranger", call.route.unsigned)
        return name

    def refuse(self, call: Call[Any, str], error: Exception) -> Reply[object] | Answer | None:
        if isinstance(error, KeyError):
            return Reply({**call.route.failed, "error": str(error)}, status=call.route.rule_status)
        return super().refuse(call, error)

    async def finish(self, call: Call[Any, str], given: Reply[object] | Answer) -> Answer:
        answer = given if isinstance(given, Answer) else encoded(call.route, given)
        return msgspec.structs.replace(answer, headers=(*answer.headers, ("X-Marked", "yes")))


def rows(hot: bool) -> dict[str, Route[Any, Any]]:
    """The table; whether its rows are hot is all that differs."""

    def row(name: str, method: Any, path: str, kind: type = NoBody, **more: Any) -> Route[Any, Any]:
        return Route(name, method, path, name, kind, Response(more.pop("status", 200), "", Sold), hot=hot, **more)

    made = (
        row("buy", "POST", "/orders/{name}", Order, status=202, callers=("name",), unsigned="Who are you?"),
        row("show", "GET", "/orders/{name}", cache="max-age=6", parameters=(Parameter("by", "query"),)),
        row("all", "GET", "/orders/all"),
        row("under", "GET", "/orders/{name}/under"),
        row("deep", "GET", "/files/{name...}"),
        row("broken", "DELETE", "/orders/{name}", failed={"hours": 0}, rule_status=200),
        row("told", "GET", "/told", stream="text/event-stream; charset=utf-8"),
    )
    return {each.id: each for each in made}


def app_of(way: Way) -> App:
    app = make_plain_app() if way == "plain" else make_app()
    endpoints, table = Endpoints(Router(app), House()), rows(way == "hot")

    async def buy(call: Call[Order, str]) -> Reply[Sold]:
        return Reply(Sold(call.request.hours, call.path("name"), call.caller), (("X-More", "1"),))

    async def show(call: Call[NoBody, str]) -> Sold:
        return Sold(1.0, call.path("name"), call.query("by") or "")

    async def everything(_: Call[NoBody, str]) -> Answer:
        return Answer(200, b"all", media="text/plain")

    async def broken(_: Call[NoBody, str]) -> Sold:
        raise KeyError("gone")

    async def told(_: Call[NoBody, str]) -> Stream:
        async def produce(sink: EventSink) -> None:
            await sink.send("one")

        return event_stream(produce)

    for name in ("show", "under", "deep"):
        endpoints.bind(table[name], show)
    endpoints.bind(table["buy"], buy)
    endpoints.bind(table["all"], everything)
    endpoints.bind(table["broken"], broken)
    endpoints.bind(table["told"], told)
    endpoints.require_all(table.values())
    return app


NAMED = {"X-Name": "ann"}
REQUESTS: dict[str, tuple[str, str, dict[str, str], bytes]] = {
    "bought": ("POST", "/orders/x", NAMED, b'{"hours":2}'),
    "by a stranger": ("POST", "/orders/x", {}, b"{"),
    "no JSON": ("POST", "/orders/x", NAMED, b"{"),
    "nothing": ("POST", "/orders/x", NAMED, b""),
    "no text": ("POST", "/orders/x", NAMED, b"\xff"),
    "nested without end": ("POST", "/orders/x", NAMED, b'{"hours":[' * 20_000),
    "another type": ("POST", "/orders/x", NAMED, b'{"hours":"2"}'),
    "shown": ("GET", "/orders/a%20b?by=y&by=z", {}, b""),
    "its head": ("HEAD", "/orders/a", {}, b""),
    "the fixed path first": ("GET", "/orders/all", {}, b""),
    "one segment": ("GET", "/orders/all/under", {}, b""),
    "with slashes": ("GET", "/files/a/b/c", {}, b""),
    "an empty rest": ("GET", "/files/", {}, b""),
    "a broken rule": ("DELETE", "/orders/x", {}, b""),
    "another method": ("PUT", "/orders/x", {}, b""),
    "another path": ("GET", "/orders/x/y", {}, b""),
    "a stream": ("GET", "/told", {}, b""),
}


async def answered(way: Way, asked: tuple[str, str, dict[str, str], bytes]) -> tuple[int, dict[str, str], bytes]:
    method, path, headers, body = asked
    client: Any = AsgiClient(app_of(way))
    answer = await client.open(path, method=method, headers=headers, data=body)
    return answer.status_code, {name.lower(): value for name, value in answer.headers}, await answer.get_data()


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("way", ["hot", "plain"])
async def test_all_ways_give_the_same_answer(way: Way, name: str) -> None:
    assert await answered(way, REQUESTS[name]) == await answered("quart", REQUESTS[name])


@WAYS
async def test_a_reply_has_the_rows_status_and_its_own_headers(way: Way) -> None:
    status, headers, body = await answered(way, REQUESTS["bought"])
    assert (status, headers["x-more"], headers["x-marked"]) == (202, "1", "yes")
    assert msgspec.json.decode(body) == {"hours": 2.0, "to": "x", "by": "ann"}


@WAYS
async def test_a_stranger_is_refused_before_the_body_is_looked_at(way: Way) -> None:
    status, headers, body = await answered(way, REQUESTS["by a stranger"])
    refused = msgspec.json.decode(body)
    assert (status, refused["code"], refused["error"]) == (401, "stranger", "Who are you?")
    assert headers["x-marked"] == "yes"  # errors are finished as well


@WAYS
@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("no JSON", 400, "bad_json"),
        ("nothing", 400, "bad_json"),
        ("no text", 400, "bad_json"),
        ("nested without end", 422, "invalid"),
        ("another type", 422, "invalid"),
    ],
)
async def test_a_body_that_is_no_request_is_refused(way: Way, name: str, status: int, code: str) -> None:
    told, _, body = await answered(way, REQUESTS[name])
    assert (told, msgspec.json.decode(body)["code"]) == (status, code)


@WAYS
@pytest.mark.parametrize(
    ("name", "to"),
    [("shown", "a b"), ("one segment", "all"), ("with slashes", "a/b/c")],
)
async def test_names_of_the_path_are_what_was_sent(way: Way, name: str, to: str) -> None:
    _, _, body = await answered(way, REQUESTS[name])
    assert msgspec.json.decode(body)["to"] == to


@WAYS
async def test_an_answer_is_kept_as_long_as_its_row_says(way: Way) -> None:
    _, kept, body = await answered(way, REQUESTS["shown"])
    _, not_kept, _ = await answered(way, REQUESTS["bought"])
    assert (kept["cache-control"], not_kept["cache-control"]) == ("max-age=6", "no-store")
    assert msgspec.json.decode(body)["by"] == "y"  # the first of two


@WAYS
async def test_a_broken_rule_is_answered_in_the_rows_form(way: Way) -> None:
    status, _, body = await answered(way, REQUESTS["a broken rule"])
    assert (status, msgspec.json.decode(body)) == (200, {"hours": 0, "error": "'gone'"})


@WAYS
async def test_a_stream_is_sent_as_it_is(way: Way) -> None:
    status, headers, body = await answered(way, REQUESTS["a stream"])
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert b"data: one\n" in body
    assert "x-marked" not in headers


def test_a_row_without_a_handler_and_one_with_two_are_refused() -> None:
    endpoints, table = Endpoints(Router(make_app()), House()), rows(hot=True)

    async def show(_: Call[NoBody, str]) -> Sold:
        return Sold(1.0, "")

    endpoints.bind(table["show"], show)
    with pytest.raises(ValueError, match="bound twice"):
        endpoints.bind(table["show"], show)
    with pytest.raises(ValueError, match="all, broken, buy"):
        endpoints.require_all(table.values())


def test_a_row_gives_clients_its_path_with_quoted_names() -> None:
    assert rows(hot=False)["show"].url(name="a/b c") == "/orders/a%2Fb%20c"


@WAYS
async def test_a_refusal_that_alone_ended_a_nursery_is_the_answer(way: Way) -> None:
    app = make_plain_app() if way == "plain" else make_app()

    async def full() -> None:
        raise ApiError(409, "full", "there is no room")

    async def crowd(_: Call[NoBody, str]) -> Sold:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(full)
        raise AssertionError

    row: Route[Any, Any] = Route("crowd", "GET", "/crowd", "", NoBody, Response(200, "", Sold), hot=way == "hot")
    Endpoints(Router(app), House()).bind(row, crowd)
    answer = await AsgiClient(app).get("/crowd")
    assert (answer.status_code, (await answer.get_json())["code"]) == (409, "full")
