"""The port to one endpoint of the chain."""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import msgspec

Json: TypeAlias = object
"""Any decoded JSON value; the reader checks its type."""


class RpcCall(msgspec.Struct, frozen=True):
    """One JSON-RPC call."""

    method: str
    params: tuple[Json, ...] = ()


class ChainEndpoint(Protocol):
    """One endpoint of the chain: a JSON-RPC server, or the recording that answers like one."""

    @property
    def name(self) -> str:
        """Its name in logs and /status, without credentials."""
        ...

    async def ask(self, calls: Sequence[RpcCall]) -> list[Json]:
        """Return the answers in the order of the calls; a refused call has a CallRefused in its place.

        Returns within the endpoint's deadline. Raises EndpointUnreachable, EndpointBusy or AnswerMalformed when
        there is no answer for any of them.
        """
        ...
