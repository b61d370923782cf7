"""Asking a node over HTTP how it is."""

import msgspec

from config.model import StatsSettings
from engram import wire
from engram.api import node
from engram.api.node_model import NodeStats
from engram.http.client import HttpClient
from engram.http.errors import BadAnswer

MAX_ANSWER_BYTES = 65_536


async def stats(http: HttpClient, endpoint: str, settings: StatsSettings) -> NodeStats:
    """Return the node's stats, over a connection of their own. Raises HttpError; BadAnswer when they are none."""
    answer = await http.request(
        "GET",
        endpoint + node.STATS.path,
        connect_s=settings.connect_timeout_s,
        read_s=settings.timeout_s,
        total_s=settings.timeout_s,
        max_bytes=MAX_ANSWER_BYTES,
        fresh=True,
    )
    if answer.status != 200:
        raise BadAnswer(f"/stats answered {answer.status}")
    try:
        return wire.decode(answer.content, NodeStats)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadAnswer(f"the answer to /stats does not fit its schema: {error}") from None
