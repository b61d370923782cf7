"""JSON-RPC 2.0 over HTTP POST to one endpoint of the chain."""

from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import Protocol, final
from urllib.parse import urlsplit

import msgspec

from engram import wire
from engram.chain.errors import AnswerMalformed, CallRefused, EndpointBusy, EndpointUnreachable
from engram.chain.read.node import Json, RpcCall
from engram.http.client import HttpClient
from engram.http.errors import HttpError, NotSent, TooLarge

MAX_ANSWER_BYTES = 4_000_000
"""A metagraph of 4,096 uids is 1.5 MB of hex, metadata 0.5 MB today."""
CONNECT_S = 5.0
ERROR_TEXT = 300
"""Characters of an endpoint's error text that reach logs and /status."""
BUSY_STATUSES = frozenset({403, 429, 503})
BUSY_CODES = frozenset({-32004, -32005})
"""How public endpoints refuse for load or quota (source: bittensor 11.3)."""


class _Error(msgspec.Struct):
    code: int
    message: str = ""
    data: Json = None

    def __post_init__(self) -> None:
        data = self.data if isinstance(self.data, str) else msgspec.json.encode(self.data).decode()
        text = f"{self.message}: {data}" if self.data else self.message
        self.message = text[:ERROR_TEXT]


class _Reply(msgspec.Struct):
    id: int | None = None
    result: Json = None
    error: _Error | None = None


_REPLY = wire.decoder(_Reply)
_REPLIES = wire.decoder(list[_Reply])
_ENCODER = msgspec.json.Encoder()


@final
class JsonRpcEndpoint:
    """One HTTP(S) endpoint. `timeout_s` bounds each `ask` as a whole."""

    def __init__(self, http: HttpClient, url: str, timeout_s: float) -> None:
        self._http = http
        self._url = url
        self._timeout_s = timeout_s
        self._next_id = 1
        self._batches = True
        self._name = name_of(url)

    @property
    def name(self) -> str:
        return self._name

    async def ask(self, calls: Sequence[RpcCall]) -> list[Json]:
        if not calls:
            return []
        if len(calls) > 1 and not self._batches:
            return [(await self._post([call]))[0] for call in calls]
        answers = await self._post(calls)
        if len(calls) > 1 and not self._batches:
            return await self.ask(calls)
        return answers

    async def _post(self, calls: Sequence[RpcCall]) -> list[Json]:
        first = self._next_id
        self._next_id += len(calls)
        requests = [
            {"jsonrpc": "2.0", "id": first + place, "method": call.method, "params": call.params}
            for place, call in enumerate(calls)
        ]
        single = len(requests) == 1
        content = await self._send(_ENCODER.encode(requests[0] if single else requests))
        try:
            many = content.lstrip()[:1] == b"["
            replies = _REPLIES.decode(content) if many else [_REPLY.decode(content)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise AnswerMalformed(f"{self._name}: no JSON-RPC answer: {error}") from error
        if not single and len(replies) == 1 and replies[0].error is not None and replies[0].id is None:
            self._refused_as_a_whole(replies[0].error)
            return []
        return self._in_order(replies, first, len(calls))

    async def _send(self, body: bytes) -> bytes:
        try:
            response = await self._http.request(
                "POST",
                self._url,
                content=body,
                headers={"content-type": "application/json", "accept": "application/json"},
                connect_s=min(CONNECT_S, self._timeout_s),
                read_s=self._timeout_s,
                total_s=self._timeout_s,
                max_bytes=MAX_ANSWER_BYTES,
            )
        except TooLarge as error:
            raise AnswerMalformed(f"{self._name}: answer larger than {MAX_ANSWER_BYTES} bytes") from error
        except HttpError as error:
            arrived = not isinstance(error, NotSent)
            raise EndpointUnreachable(f"{self._name}: {error}", may_have_arrived=arrived) from error
        if response.status in BUSY_STATUSES:
            raise EndpointBusy(
                f"{self._name}: HTTP {response.status}",
                _retry_after_s(response.headers),
                may_have_arrived=response.status == 503,
            )
        if response.status != 200:
            raise EndpointUnreachable(f"{self._name}: HTTP {response.status}")
        return response.content

    def _refused_as_a_whole(self, error: _Error) -> None:
        """Stop batching for a server that answers a batch with one error object (jsonrpsee: also -32005)."""
        if "batch" not in error.message.lower():
            self._raise_if_busy(error)
            raise AnswerMalformed(f"{self._name}: {error.message} ({error.code})")
        self._batches = False

    def _in_order(self, replies: list[_Reply], first: int, count: int) -> list[Json]:
        by_id: dict[int, _Reply] = {}
        for reply in replies:
            if reply.id is None or not first <= reply.id < first + count or reply.id in by_id:
                if reply.error is not None:
                    self._raise_if_busy(reply.error)
                raise AnswerMalformed(f"{self._name}: answer to a call that was not made")
            by_id[reply.id] = reply
        if len(by_id) != count:
            raise AnswerMalformed(f"{self._name}: {len(by_id)} answers to {count} calls")
        answers: list[Json] = []
        for place in range(count):
            reply = by_id[first + place]
            if reply.error is None:
                answers.append(reply.result)
                continue
            self._raise_if_busy(reply.error)
            answers.append(CallRefused(reply.error.code, reply.error.message))
        return answers

    def _raise_if_busy(self, error: _Error) -> None:
        if error.code in BUSY_CODES:
            raise EndpointBusy(f"{self._name}: {error.message} ({error.code})")


def name_of(url: str) -> str:
    """Return scheme, host and port of an endpoint, without credentials. Raises ValueError for other than HTTP."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an endpoint is an http, https, ws or wss URL")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


class _Headers(Protocol):
    def get(self, name: str, /) -> str | None: ...


def _retry_after_s(headers: _Headers) -> float | None:
    """Return the seconds of Retry-After (RFC 9110 10.2.3); a date is relative to the answer's own Date header."""
    text = (headers.get("retry-after") or "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    until, now = _unix_s(text), _unix_s(headers.get("date") or "")
    return None if until is None or now is None else max(0.0, until - now)


def _unix_s(text: str) -> float | None:
    """Return the Unix time of an HTTP date, None when it is malformed."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
