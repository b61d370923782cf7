"""Whether a hotkey is registered, before an orchestrator or a validator sees it.

Nothing here registers it: that costs, and is asked for on the command line.
"""

from typing import Final

import structlog
import trio

from config.model import ChainSettings, WorkerSettings
from engram.chain import ChainError
from engram.chain.read.endpoints import http_url, open_endpoints
from engram.chain.read.rpc import name_of
from engram.chain.read.runtime import SUBTENSOR
from engram.chain.read.view import open_view
from engram.clock import Clock
from engram.hotkeys import PublicKey, ss58
from engram.http.client import HttpClient

ASK_S: Final = 30.0
RECORDED: Final = "recorded"

_log = structlog.get_logger("engram.registration")


async def require_worker_registered(at: WorkerSettings, hotkey: PublicKey, http: HttpClient, clock: Clock) -> None:
    """Ask the chain for a worker's hotkey, where `worker.network` names one. See `require_registered`."""
    if at.network:
        wallet = f"--wallet.name {at.wallet_name} --wallet.hotkey {at.hotkey_name}"
        network = network_shown(at.network)
        command = registering(network, at.netuid, wallet)
        remedy = f"{command}, and so does this command with `--register --max-cost TAO`"
        await require_registered(chain_of(at), network, hotkey, remedy, http, clock)


async def require_registered(
    chain: ChainSettings, network: str, hotkey: PublicKey, remedy: str, http: HttpClient, clock: Clock
) -> None:
    """Ask the chain for the hotkey on the settings' subnet; `remedy` says what registers it.

    A chain that does not answer within ASK_S keeps nothing from starting. Raises ValueError for a hotkey that is not
    registered, and for a network that is none.
    """
    (netuid,) = chain.netuids
    nodes = open_endpoints(chain, http, clock)
    with trio.move_on_after(ASK_S):
        try:
            uid = await (await open_view(nodes)).storage(SUBTENSOR, "Uids", netuid, hotkey)
        except ChainError as error:
            _log.warning("registration_unknown", netuid=netuid, network=network, reason=str(error))
            return
        if uid is None:
            raise ValueError(
                f"the hotkey {ss58.encode(hotkey)} is not registered on subnet {netuid} of {network}: {remedy}"
            )
        return
    _log.warning("registration_unknown", netuid=netuid, network=network, reason=f"no answer in {ASK_S:g} s")


def network_shown(network: str) -> str:
    """Return a network as it is shown: of an endpoint only host and port, since its path may be a provider's key.

    >>> network_shown("wss://user:secret@chain.example:443/key?token=1"), network_shown("finney")
    ('https://chain.example:443', 'finney')
    """
    return name_of(http_url(network)) if "://" in network else network


def registering(network: str, netuid: int, wallet: str) -> str:
    """Return the command that registers a hotkey, in words."""
    return f"`engram subnet register --network {network} --netuid {netuid} {wallet} --max-cost TAO` registers it"


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
