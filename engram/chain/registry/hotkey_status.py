"""The status of a hotkey on a subnet: registration, weights, axon, and whether validators reach its endpoint."""

import msgspec

from engram.chain.model import MECHANISM_MAX_U16, RAO_PER_TAO, Metagraph
from engram.chain.read.commitments import HotkeyCommitment, read_commitment
from engram.chain.read.view import View
from engram.chain.registry.announce_rules import ServingAddress
from engram.chain.registry.probe import Probing, probe_one
from engram.chain.registry.registrations import registry_entry
from engram.hotkeys import PublicKey, ss58
from engram.http.client import HttpClient


class HotkeyStatus(msgspec.Struct, frozen=True):
    """The status of a hotkey on a subnet at one block."""

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
    """Whether the committed endpoint answers as validators ask it; None when it was not asked."""
    unreachable_because: str | None = None


class HotkeyFacts(msgspec.Struct, frozen=True):
    """What one block says about a hotkey."""

    hotkey: PublicKey
    metagraph: Metagraph
    commitment: HotkeyCommitment | None


async def read_facts(view: View, netuid: int, hotkey: PublicKey, now_s: float) -> HotkeyFacts:
    """Read what the view's block says about a hotkey. `now_s` is monotonic."""
    metagraph = await view.metagraph(netuid, now_s)
    return HotkeyFacts(hotkey, metagraph, await read_commitment(view, netuid, hotkey))


async def hotkey_status(facts: HotkeyFacts, http: HttpClient, probing: Probing | None) -> HotkeyStatus:
    """Return the status; `probing` is how the committed endpoint is asked, None to leave it alone."""
    metagraph, address = facts.metagraph, ss58.encode(facts.hotkey)
    neuron = metagraph.neuron(facts.hotkey)
    if neuron is None:
        return HotkeyStatus(address, metagraph.netuid, metagraph.block, registered=False)
    committed = None if facts.commitment is None else registry_entry(facts.commitment)
    endpoint = None if committed is None else committed.registration
    answer = None if endpoint is None or probing is None else await probe_one(http, endpoint, facts.hotkey, probing)
    return HotkeyStatus(
        hotkey=address,
        netuid=metagraph.netuid,
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
        axon=None if neuron.axon is None else ServingAddress(neuron.axon.ip, neuron.axon.port).text,
        committed=None if endpoint is None else endpoint.text,
        commitment_error="nothing is committed" if committed is None else committed.error or None,
        reachable=None if answer is None else answer.valid,
        unreachable_because=None if answer is None else answer.reason or None,
    )
