"""Sends calls through the endpoints of one network, and reads back what the chain holds after them.

A call is done when the block that includes it is finalized and a reading at that very block shows what was written:
success of the call alone does not say that nothing else in the block has overwritten it.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeVar, final

import trio

from engram.chain.errors import TRANSIENT, CallNotComposable, NotReadBack, RuntimeApiMissing
from engram.chain.read.endpoints import check_genesis
from engram.chain.read.node import ChainEndpoint
from engram.chain.read.runtime import RuntimeCall
from engram.chain.read.view import View, view_at
from engram.chain.submit.compose import Composer
from engram.chain.submit.submit_extrinsic import BeforeSending, Included, InclusionWait, submit
from engram.hotkeys import Keypair

T = TypeVar("T")
READ_BACK_ROUNDS: Final = 3
READ_BACK_PAUSE_S: Final = 0.5
_NOT_READ: Final = (*TRANSIENT, CallNotComposable, RuntimeApiMissing)
"""Says nothing about what the chain holds: an endpoint failed, or the runtime was upgraded to another layout."""


@final
class Sender:
    """Sends calls and reads back their effect. Keeps no state between calls: each reads its nonce anew."""

    def __init__(
        self,
        nodes: Sequence[ChainEndpoint],
        *,
        network: str | None = None,
        waiting: InclusionWait = InclusionWait(),  # noqa: B008 - frozen
        composer: Callable[[View], Composer] | None = None,
        sending: BeforeSending = lambda digest, last_block: None,
    ) -> None:
        """`network` names the network that may be signed for; None allows any. `composer` None is bittensor-core."""
        self.nodes = nodes
        self._network = network
        self._waiting = waiting
        self._composer = composer
        self._sending = sending

    async def send(self, view: View, call: RuntimeCall, keypair: Keypair) -> Included:
        """Sign the call at the view's block, send it, and wait for its finalized block.

        Raises AnotherNetwork before anything is signed, and else as `submit`.
        """
        composer = None if self._composer is None else self._composer(view)
        judging = partial(check_genesis, self._network)
        return await submit(view, self.nodes, call, keypair, self._waiting, composer, self._sending, judging)

    async def read_back(self, view: View, done: Included, look: Callable[[View], Awaitable[T]]) -> T:
        """Return what `look` finds in the block that includes a call, by the first endpoint that can say.

        No other endpoint may contradict it. Raises NotReadBack when none can say in READ_BACK_ROUNDS rounds.
        """
        why = ""
        for round_ in range(READ_BACK_ROUNDS):
            for node in (view.node, *(other for other in self.nodes if other is not view.node)):
                others = [other for other in self.nodes if other is not node]
                try:
                    return await look(await view_at(node, done.block.hash, view, others))
                except _NOT_READ as error:
                    why = str(error)
            if round_ < READ_BACK_ROUNDS - 1:
                await trio.sleep(READ_BACK_PAUSE_S)
        raise NotReadBack(done.extrinsic_hash, done.block.number, why)
