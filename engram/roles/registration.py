"""Whether a worker's hotkey is registered, before an orchestrator sees it.

Nothing here registers it: that costs, and is asked for on the command line.
"""

from typing import Final

import structlog
import trio

from config.model import ChainSettings, WorkerSettings
from engram.chain import ChainError
from engram.chain.read.endpoints import open_endpoints
from engram.chain.read.runtime import SUBTENSOR
from engram.chain.read.view import open_view
from engram.clock import Clock
from engram.hotkeys import PublicKey, ss58
from engram.http.client import HttpClient

ASK_S: Final = 30.0
RECORDED: Final = "recorded"

_log = structlog.get_logger("engram.worker")


async def require_registered(at: WorkerSettings, hotkey: PublicKey, http: HttpClient, clock: Clock) -> None:
    """Ask the chain for the hotkey, where `worker.network` names one.

    A chain that does not answer within ASK_S keeps no worker from starting. Raises ValueError for a hotkey that is not
    registered, and for a network that is none.
    """
    if not at.network:
        return
    nodes = open_endpoints(chain_of(at), http, clock)
    with trio.move_on_after(ASK_S):
        try:
            uid = await (await open_view(nodes)).storage(SUBTENSOR, "Uids", at.netuid, hotkey)
        except ChainError as error:
            _log.warning("registration_unknown", netuid=at.netuid, network=at.network, reason=str(error))
            return
        if uid is None:
            raise ValueError(
                f"the hotkey {ss58.encode(hotkey)} is not registered on subnet {at.netuid} of {at.network}: "
                f"`engram subnet register --network {at.network} --netuid {at.netuid} --wallet.name {at.wallet_name} "
                f"--wallet.hotkey {at.hotkey_name} --max-cost TAO` registers it, and so does this command with "
                "`--register --max-cost TAO`"
            )
        return
    _log.warning("registration_unknown", netuid=at.netuid, network=at.network, reason=f"no answer in {ASK_S:g} s")


def chain_of(at: WorkerSettings) -> ChainSettings:
    """Return the settings of the chain that `worker.network` names: a network or an endpoint's URL.

    >>> chain_of(WorkerSettings(network="finney")).network
    'finney'
    >>> chain_of(WorkerSettings(network="wss://chain.example")).endpoints
    ('wss://chain.example',)
    """
    is_url = "://" in at.network
    return ChainSettings(
        source="recorded" if at.network == RECORDED else "rpc",
        network="" if is_url else at.network,
        endpoints=(at.network,) if is_url else (),
        netuids=(at.netuid,),
    )
