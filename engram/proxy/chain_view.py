"""The subnet as the syncer keeps it in memory, for authorization."""

from typing import final

from config.model import ChainSettings
from engram.chain import Subnets
from engram.hotkeys import PublicKey
from engram.proxy.authorization import Caller
from engram.proxy.settings.model import AuthSettings


@final
class SyncedChain:
    """A subnet that a syncer keeps up to date."""

    def __init__(self, subnets: Subnets, netuid: int) -> None:
        self._subnets = subnets
        self._netuid = netuid

    def age_s(self) -> float | None:
        """Return the seconds since it was read; None when it never was."""
        return self._subnets.age_s(self._netuid)

    def caller(self, hotkey: PublicKey) -> Caller | None:
        """Return what the metagraph has of a hotkey."""
        metagraph = self._subnets.get(self._netuid)
        neuron = None if metagraph is None else metagraph.neuron(hotkey)
        if neuron is None:
            return None
        return Caller(neuron.validator_permit, neuron.alpha_stake_rao, neuron.tao_stake_rao, neuron.stake_rao)


@final
class NoChain:
    """The view of a proxy that follows no chain."""

    def age_s(self) -> float | None:
        """Return None: nothing was ever read."""
        return None

    def caller(self, hotkey: PublicKey) -> Caller | None:
        """Return None: no hotkey is known."""
        return None


def chain_settings(auth: AuthSettings) -> ChainSettings:
    """Return the settings of the syncer: the endpoint of the original is a WebSocket, and answers HTTP as well."""
    url = auth.chain_endpoint
    for before, after in (("wss://", "https://"), ("ws://", "http://")):
        if url.startswith(before):
            url = after + url.removeprefix(before)
    return ChainSettings(endpoints=(url,) if url else (), netuids=(auth.netuid,), network="proxy")
