"""The status of a hotkey on a subnet: registration, weights, axon, and whether validators reach its endpoint."""

import msgspec

from engram.chain.model import MECHANISM_MAX_U16, RAO_PER_TAO, Metagraph
from engram.chain.read.commitments import HotkeyCommitment, read_commitment
from engram.chain.read.view import View
from engram.chain.registry.announce_rules import ServingAddress
from engram.chain.registry.earnings import EarningsChange, earnings_change
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
    since_block: int | None = None
    """The earlier block that the changes are counted from."""
    incentive_change: float | None = None
    emission_change_rao: int | None = None
    change_unknown_because: str | None = None
    last_update_block: int | None = None
    registered_at_block: int | None = None
    axon: str | None = None
    committed: str | None = None
    commitment_error: str | None = None
    reachable: bool | None = None
    """Whether the committed endpoint answers as validators ask it; None when it was not asked."""
    unreachable_because: str | None = None


class HotkeyFacts(msgspec.Struct, frozen=True):
    """What one block says about a hotkey, and an earlier one about its earnings."""

    hotkey: PublicKey
    metagraph: Metagraph
    commitment: HotkeyCommitment | None
    change: EarningsChange


async def read_facts(
    view: View, netuid: int, hotkey: PublicKey, now_s: float, *, since: int | None = None
) -> HotkeyFacts:
    """Read what the view's block says about a hotkey, and how its earnings changed from block `since`.

    `now_s` is monotonic; without `since` the change is the one of the last epoch.
    """
    metagraph = await view.metagraph(netuid, now_s)
    commitment = await read_commitment(view, netuid, hotkey)
    return HotkeyFacts(hotkey, metagraph, commitment, await earnings_change(view, metagraph, hotkey, since))


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
        since_block=facts.change.since_block,
        incentive_change=facts.change.incentive,
        emission_change_rao=facts.change.emission_rao,
        change_unknown_because=facts.change.unknown_because,
        last_update_block=neuron.last_update_block,
        registered_at_block=neuron.registered_at_block,
        axon=None if neuron.axon is None else ServingAddress(neuron.axon.ip, neuron.axon.port).text,
        committed=None if endpoint is None else endpoint.text,
        commitment_error="nothing is committed" if committed is None else committed.error or None,
        reachable=None if answer is None else answer.valid,
        unreachable_because=None if answer is None else answer.reason or None,
    )
