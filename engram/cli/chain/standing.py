"""How a hotkey stands on a subnet, as `engram subnet status` tells it."""

import msgspec

from engram.chain.model import MECHANISM_MAX_U16, RAO_PER_TAO
from engram.chain.read.commitments import read_commitment
from engram.chain.read.view import open_view
from engram.chain.registry.announce_rules import Place
from engram.chain.registry.probe import Probing, ask
from engram.chain.registry.registrations import entry
from engram.cli.chain.common import Chain
from engram.cli.chain.endpoints import endpoints
from engram.clock import SystemClock
from engram.hotkeys import PublicKey, ss58
from engram.http.client import HttpClient


class Standing(msgspec.Struct, frozen=True):
    """How a hotkey stands on a subnet."""

    hotkey: str
    netuid: int
    block: int
    registered: bool
    uid: int | None = None
    coldkey: str | None = None
    stake_tao: float | None = None
    validator_permit: bool | None = None
    active: bool | None = None
    incentive: float | None = None
    emission_rao: int | None = None
    """Alpha per tempo."""
    last_update_block: int | None = None
    registered_at_block: int | None = None
    axon: str | None = None
    committed: str | None = None
    commitment_error: str | None = None
    reachable: bool | None = None
    """Whether validators can reach the committed endpoint; None when it was not asked."""
    unreachable_because: str | None = None


async def standing_of(chain: Chain, hotkey: PublicKey, *, probing: bool, allow_private: bool) -> Standing:
    """How the hotkey stands now; `probing` asks the committed endpoint, as validators do."""
    async with endpoints(chain) as nodes:
        view = await open_view(nodes)
        metagraph = await view.metagraph(chain.netuid, SystemClock().monotonic())
        commitment = await read_commitment(view, chain.netuid, hotkey)
    neuron = metagraph.neuron(hotkey)
    if neuron is None:
        return Standing(ss58.encode(hotkey), chain.netuid, metagraph.block, False)
    committed = None if commitment is None else entry(commitment)
    there = None if committed is None else committed.registration
    answer = None
    if there is not None and probing:
        http = HttpClient()
        answer = await ask(http, there, hotkey, Probing(allow_private=allow_private))
        await http.aclose()
    return Standing(
        hotkey=ss58.encode(hotkey),
        netuid=chain.netuid,
        block=metagraph.block,
        registered=True,
        uid=neuron.uid,
        coldkey=ss58.encode(neuron.coldkey),
        stake_tao=neuron.stake_rao / RAO_PER_TAO,
        validator_permit=neuron.validator_permit,
        active=neuron.active,
        incentive=round(neuron.incentive_u16 / MECHANISM_MAX_U16, 6),
        emission_rao=neuron.emission_rao,
        last_update_block=neuron.last_update_block,
        registered_at_block=neuron.registered_at_block,
        axon=None if neuron.axon is None else Place(neuron.axon.ip, neuron.axon.port).text,
        committed=None if there is None else there.text,
        commitment_error="nothing is committed" if committed is None else committed.error or None,
        reachable=None if answer is None else answer.valid,
        unreachable_because=None if answer is None else answer.reason or None,
    )
