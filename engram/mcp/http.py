"""One endpoint of the Streamable HTTP transport: a POST has one JSON answer; nothing is pushed, no session is kept.

The router answers GET and DELETE with 405, as the specification allows where a server has no stream and no sessions.
"""

from collections.abc import Callable
from typing import final

import msgspec

from engram.http.request import Answer, HeaderPairs, Request
from engram.mcp.access import Access, Arrived, Denied
from engram.mcp.dispatcher import Dispatcher


class Refusal(msgspec.Struct, frozen=True):
    """Why a request was refused before any message was read."""

    error: str
    code: str


@final
class McpEndpoint:
    """Answers the requests to one path."""

    def __init__(
        self, dispatcher: Dispatcher, access: Access, refused: Callable[[str], None] = lambda code: None
    ) -> None:
        """Take `refused`, which is called with the code of each refusal."""
        self._dispatcher = dispatcher
        self._access = access
        self._refused = refused

    async def post(self, request: Request) -> Answer:
        """Answer one message."""
        arrived = Arrived.of(request)
        try:
            caller = await self._access.caller(arrived)
            _check_form(arrived.headers)
        except Denied as denied:
            self._refused(denied.code)
            return refusal(denied)
        answered = await self._dispatcher.answer(request.body, caller, arrived.headers)
        if answered.body is None:
            return Answer(answered.status, b"", media="")
        retry: HeaderPairs = (("Retry-After", "1"),) if answered.status == 503 else ()
        return Answer(answered.status, answered.body, (("Cache-Control", "no-store"), *retry))


def refusal(denied: Denied) -> Answer:
    """Return the answer to a request that may not be made."""
    headers: HeaderPairs = (("WWW-Authenticate", denied.challenge),) if denied.challenge else ()
    if denied.status == 503:
        headers = (("Retry-After", "2"),)
    return Answer(denied.status, msgspec.json.encode(Refusal(denied.message, denied.code)), headers)


def _check_form(headers: list[tuple[str, str]]) -> None:
    """Check media types. Raises Denied."""
    media = dict(headers).get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise Denied(415, "unsupported_media_type", "a message is sent as Content-Type: application/json")
    accepted = ",".join(value for name, value in headers if name == "accept")
    taken = [each.partition(";")[0].strip().lower() for each in (accepted or "*/*").split(",")]
    if not {"application/json", "application/*", "*/*"} & set(taken):
        raise Denied(406, "not_acceptable", "answers are application/json: name it in Accept")
