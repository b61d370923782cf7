"""Which wire a message is of, and what is refused before any method runs."""

from typing import Any

import msgspec
import pytest

from engram.mcp import rules
from engram.mcp.model import CAPABILITIES_KEY, VERSION_KEY, McpError, Message
from tests.mcp.toys import NEW, OLD, call, request

pytestmark = pytest.mark.rules

META = {VERSION_KEY: NEW, CAPABILITIES_KEY: {}}


def refused(line: bytes) -> int:
    with pytest.raises(McpError) as caught:
        rules.read(line)
    return caught.value.code


@pytest.mark.parametrize("line", [b"{", b"", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000])
def test_what_is_no_json_is_a_parse_error(line: bytes) -> None:
    assert refused(line) in (-32700, -32600)


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b' [{"jsonrpc":"2.0","id":1,"method":"ping"}]',
        b"7",
        b'{"id":1,"method":"ping"}',
        b'{"jsonrpc":"1.0","id":1,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":null,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":true,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}',
        b'{"jsonrpc":"2.0"}',
    ],
)
def test_what_is_no_message_is_an_invalid_request(line: bytes) -> None:
    assert refused(line) == -32600


def test_requests_notifications_and_responses_are_read() -> None:
    assert rules.read(request("ping", id="a")).id == "a"
    assert rules.read(b'{"jsonrpc":"2.0","method":"notifications/initialized"}').id is msgspec.UNSET
    assert rules.read(b'{"jsonrpc":"2.0","id":1,"result":{}}').method is msgspec.UNSET


@pytest.mark.parametrize(
    ("line", "header", "stateless"),
    [
        (request("tools/list"), None, False),
        (request("tools/list"), OLD, False),
        (request("tools/list"), NEW, True),
        (request("tools/list", new=True), None, True),
        (request("tools/list", new=True), "2031-01-01", True),
        (request("tools/list"), "2031-01-01", False),
        (request("server/discover"), None, True),
        (request("initialize", new=True), NEW, True),
        (request("initialize", new=True), None, False),
        (request("initialize"), OLD, False),
    ],
)
def test_the_wire_is_told_by_header_and_envelope(line: bytes, header: str | None, stateless: bool) -> None:
    assert rules.is_stateless(rules.read(line), header) is stateless


def checked(line: bytes, headers: list[tuple[str, str]] | None = None) -> McpError | None:
    try:
        rules.check_stateless(rules.read(line), headers)
    except McpError as error:
        return error
    return None


def headers(method: str, name: str | None = None, version: str = NEW) -> list[tuple[str, str]]:
    lines = [("mcp-protocol-version", version), ("mcp-method", method)]
    return lines if name is None else [*lines, ("mcp-name", name)]


@pytest.mark.parametrize("meta", [None, [], {}, {VERSION_KEY: NEW}, {CAPABILITIES_KEY: {}}])
def test_an_envelope_names_version_and_capabilities(meta: Any) -> None:
    error = checked(request("tools/list", {"_meta": meta}))
    assert error is not None
    assert error.code == -32602


def test_a_message_without_params_has_no_envelope() -> None:
    error = checked(b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}')
    assert error is not None
    assert error.code == -32602


def test_a_version_that_is_not_served_is_refused_with_those_that_are() -> None:
    error = checked(request("tools/list", {"_meta": META | {VERSION_KEY: "2031-01-01"}}))
    assert error is not None
    assert (error.code, error.data) == (-32022, {"supported": [NEW], "requested": "2031-01-01"})
    shapeless = checked(request("tools/list", {"_meta": META | {VERSION_KEY: 7}}))
    assert shapeless is not None
    assert shapeless.code == -32602


@pytest.mark.parametrize(
    ("line", "lines"),
    [
        (request("tools/list", new=True), []),
        (request("tools/list", new=True), headers("tools/list", version=OLD)),
        (request("tools/list", new=True), headers("tools/call")),
        (request("tools/list", new=True), [*headers("tools/list"), ("mcp-method", "tools/list")]),
        (call("echo", new=True), headers("tools/call")),
        (call("echo", new=True), headers("tools/call", "other")),
        (call("é", new=True), headers("tools/call", "é")[:2]),
        (call("é", new=True), headers("tools/call", "=?base64?w6l=?=")),
        (call("é", new=True), headers("tools/call", "=?base64?/w==?=")),
        (call("é", new=True), headers("tools/call", "=?base64?%?=")),
    ],
)
def test_headers_that_are_not_the_body_s_are_refused(line: bytes, lines: list[tuple[str, str]]) -> None:
    error = checked(line, lines)
    assert error is not None
    assert error.code == -32020


@pytest.mark.parametrize(
    ("line", "lines"),
    [
        (request("tools/list", new=True), headers("tools/list")),
        (call("echo", new=True), headers("tools/call", "echo")),
        (call("é", new=True), headers("tools/call", rules.header_spelled("é"))),
        (request("tools/call", new=True), headers("tools/call")),
        (request("resources/read", {"uri": "toy://1"}, new=True), headers("resources/read", "toy://1")),
    ],
)
def test_headers_that_repeat_the_body_are_taken(line: bytes, lines: list[tuple[str, str]]) -> None:
    assert checked(line, lines) is None


def test_named_params_are_compared_also_where_there_are_none() -> None:
    message = Message("2.0", "tools/call", 1)
    with pytest.raises(McpError):
        rules.check_stateless(message, headers("tools/call"))


@pytest.mark.parametrize("text", ["latest", "é", " edge ", "=?base64?w6k=?=", "line\nbreak"])
def test_a_header_carries_any_text(text: str) -> None:
    spelled = rules.header_spelled(text)
    assert spelled.isascii()
    assert spelled.isprintable()
    assert rules.header_value(spelled) == text


def test_a_client_gets_its_version_or_our_newest_of_its_wire() -> None:
    assert rules.negotiated("2025-06-18") == "2025-06-18"
    assert rules.negotiated(NEW) == rules.negotiated("2019-01-01") == rules.negotiated(None) == OLD


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("localhost:9600", False),
        ("127.0.0.1", False),
        ("[::1]:80", False),
        ("Agents.example", True),
        ("agents.example:8443", True),
        ("other.example:8443", True),
        ("other.example", False),
        ("agents.example.evil", False),
        ("[::1]evil", False),
        ("localhost.evil", False),
        ("", False),
        (None, False),
    ],
)
def test_only_our_own_hosts_are_ours(host: str | None, ours: bool) -> None:
    assert rules.host_is_ours(host, {"agents.example", "other.example:8443"}) is ours


@pytest.mark.parametrize(
    ("origin", "ours"),
    [
        (None, True),
        ("http://localhost:3000", False),
        ("https://agents.example", True),
        ("https://evil.example", False),
        ("null", False),
        ("file://localhost", False),
        ("http://[::1]evil", False),
        ("http://[::1].evil.example", False),
        ("http://[::1", False),
        ("http://[::1]:3000", True),
    ],
)
def test_only_pages_of_our_own_hosts_may_call(origin: str | None, ours: bool) -> None:
    assert rules.origin_is_ours(origin, {"agents.example", "::1"}) is ours


def test_a_loopback_address_is_one() -> None:
    assert rules.is_loopback_address("127.9.9.9")
    assert rules.is_loopback_address("::1")
    assert not rules.is_loopback_address("10.0.0.1")
    assert not rules.is_loopback_address("unix")


@pytest.mark.parametrize("bound", [None, ("agents.internal", 80), ("0.0.0.0", 80)])
def test_a_server_that_is_bound_to_no_one_address_has_the_names_it_is_given(bound: tuple[str, int] | None) -> None:
    assert rules.names_of(["agents.example"], bound, local=False) == {"agents.example"}


def test_the_audiences_of_a_server_that_is_not_bound_are_its_names() -> None:
    assert rules.audiences_of(["agents.example"], None, local=True) == {"agents.example"}
