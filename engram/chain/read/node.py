"""The port to one endpoint of the chain."""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import msgspec

Json: TypeAlias = object
"""Any decoded JSON value; whoever reads it checks what it is."""


class RpcCall(msgspec.Struct, frozen=True):
    """One JSON-RPC call."""

    method: str
    params: tuple[Json, ...] = ()


class ChainEndpoint(Protocol):
    """One endpoint of the chain: a JSON-RPC server, or the recording that answers like one."""

    @property
    def name(self) -> str:
        """What logs and /status call it; no credentials."""
        ...

    async def ask(self, calls: Sequence[RpcCall]) -> list[Json]:
        """Answers in the order of the calls; a call that was refused has its CallRefused in the place.

        Returns within the endpoint's deadline. Raises EndpointUnreachable, EndpointBusy or AnswerMalformed when
        there is no answer for any of them.
        """
        ...
