"""A network in memory between a validator and its miners, for virtual time."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import trio

from engram.http.client import Response
from engram.http.errors import Interrupted
from tests.fakes.responder import Asked
from tests.validator.toy_miners import Keeps


class Network:
    """Carries requests to miners without sockets; those to a miner in `hanging` are never answered."""

    def __init__(self, miners: Sequence[Keeps]) -> None:
        self.miners = {miner.url: miner for miner in miners}
        self.hanging: set[Keeps] = set()
        self.reached: dict[Keeps, float] = {}

    async def request(
        self, method: str, url: str, *, content: bytes, headers: Mapping[str, str], total_s: float, **_: Any
    ) -> Response:
        parts = urlsplit(url)
        miner = self.miners[f"http://{parts.netloc}"]
        if miner in self.hanging:
            await trio.sleep(total_s)
            raise Interrupted("no answer")
        self.reached.setdefault(miner, trio.current_time())
        answer = await miner.answer(Asked(method, parts.path, dict(headers), content))
        assert answer is not None
        status, headers, body = answer
        assert isinstance(body, bytes)
        return Response(status, headers, body)
