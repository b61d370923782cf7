"""Between an agent on standard input and a server over HTTP: signs each message with a hotkey, for clients that cannot.

Each message goes with a token of its own, over the sha256 of the message, for one minute and one use.
"""

import hashlib
from email.utils import parsedate_to_datetime
from typing import Final, final
from urllib.parse import urlsplit

import msgspec
import trio

from engram.clock import Clock, Ids
from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from engram.mcp import remote, rules, tokens
from engram.mcp.dispatcher import CALL_S, MAX_ANSWER_BYTES
from engram.mcp.model import INTERNAL_ERROR, SUPPORTED, McpError, Message, RequestId
from engram.mcp.remote import Exchanged, RemoteFailed
from engram.mcp.stdio import refused_line
from engram.mcp.tokens import Claims

LIFE_S: Final = 60
_UNAUTHORIZED: Final = 401
_BUSY: Final = 503
_TRIES: Final = 4
_PAUSE_S: Final = 1.0
_MOST_SKEW_S: Final = 3_600.0
"""A clock further off is to be set."""


@final
class Bridge:
    """Sends the lines of one client to one server."""

    def __init__(self, url: str, keypair: Keypair, http: HttpClient, clock: Clock, ids: Ids) -> None:
        """Raise ValueError for a URL that is none."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.username is not None:
            raise ValueError(f"the server's URL is http(s)://HOST[:PORT]/PATH, not {url!r}")
        self._url = url
        self._audience = audience(url)
        self._keypair = keypair
        self._http = http
        self._clock = clock
        self._ids = ids
        self._version: str | None = None
        """What the handshake agreed on; None before it, and in the stateless wire."""
        self._skew_s = 0.0
        """How far the server's clock is ahead of ours, once it has refused a token."""

    async def respond(self, line: bytes, message: Message | None) -> bytes | None:
        """Return the server's answer to a line; a failure on the way is an error of the request."""
        if message is None:
            try:
                rules.read(line)
            except McpError as error:
                return refused_line(error)
        assert message is not None, "rules.read has read it"
        try:
            return await self._sent(line, message)
        except RemoteFailed as failed:
            if isinstance(message.id, msgspec.UnsetType) or message.id is None:
                return None
            shown = {"code": INTERNAL_ERROR, "message": f"{self._audience}: {failed}"}
            return msgspec.json.encode({"jsonrpc": "2.0", "id": message.id, "error": shown})

    async def _sent(self, line: bytes, message: Message) -> bytes | None:
        request_id = None if isinstance(message.id, msgspec.UnsetType) else message.id
        found = await self._posted(line, message, request_id)
        for _ in range(_TRIES - 1):
            if not self._to_be_signed_again(found):
                break
            if found.status == _BUSY:
                await trio.sleep(_PAUSE_S)
            found = await self._posted(line, message, request_id)
        if found.response is None:
            if found.status in (200, 202) and request_id is None:
                return None
            raise RemoteFailed(f"status {found.status}: {found.body[:300].decode(errors='replace')}")
        if message.method == "initialize" and found.response.result is not None:
            agreed = found.response.result.get("protocolVersion")
            self._version = agreed if agreed in SUPPORTED else None
        return msgspec.json.format(found.body, indent=-1)  # one line, however the server spaced it

    def _to_be_signed_again(self, found: Exchanged) -> bool:
        """Return whether the server did not carry a request out, and may do so with another token.

        It takes none for a moment after its start, nor one of a clock that is not its own: the next is signed by its.
        """
        if found.response is not None or found.status not in (_UNAUTHORIZED, _BUSY):
            return False
        skew_s = self._skew_s
        try:
            skew_s = parsedate_to_datetime(found.headers.get("date", "")).timestamp() - self._clock.now()
        except ValueError:
            return found.status == _BUSY
        differs = abs(skew_s - self._skew_s) > 1.0 and abs(skew_s) < _MOST_SKEW_S
        if differs:
            self._skew_s = skew_s
        return differs or found.status == _BUSY

    async def _posted(self, line: bytes, message: Message, request_id: RequestId | None) -> Exchanged:
        return await remote.post(
            self._http,
            self._url,
            line,
            {**self._headers(message), "authorization": f"Bearer {self._token(line)}"},
            request_id=request_id,
            within_s=CALL_S + 5.0,
            max_bytes=MAX_ANSWER_BYTES + 65_536,
        )

    def _headers(self, message: Message) -> dict[str, str]:
        params = {} if isinstance(message.params, msgspec.UnsetType) else message.params
        if rules.is_stateless(message, None) and isinstance(message.method, str):
            return remote.routing(message.method, params)
        return {} if self._version is None or message.method == "initialize" else {rules.VERSION_HEADER: self._version}

    def _token(self, line: bytes) -> str:
        now = int(self._clock.now() + self._skew_s)
        claims = Claims(
            key=self._keypair.ss58,
            aud=self._audience,
            scope=("read", "write"),
            iat=now,
            exp=now + LIFE_S,
            id=self._ids.token(16),
            body=hashlib.sha256(line).hexdigest(),
        )
        return tokens.mint(self._keypair, claims)


def audience(url: str) -> str:
    """Return whom tokens for a server name: its Host header.

    >>> audience("https://Agents.example/mcp"), audience("http://127.0.0.1:9600/mcp")
    ('agents.example', '127.0.0.1:9600')
    """
    return urlsplit(url).netloc.lower()
