"""The answer to GET /bittensor/metagraph, from memory and encoded once per block and selection of fields."""

from collections.abc import Callable, Sequence

import msgspec
import trio

from engram.chain.bodies import Addresses, EncodedBody
from engram.chain.errors import SubnetNotSynced, UnknownField
from engram.chain.model import MECHANISM_MAX_U16, RAO_PER_TAO, Metagraph, Neuron
from engram.chain.sync.subnets import Subnets

HEAD_FIELDS = ("network", "block", "netuid", "note")
"""What the original answered; always there."""

NEURONS_A_STEP = 64

Value = int | float | str | bool | None


def _share(value: int) -> float:
    return round(value / MECHANISM_MAX_U16, 6)


NEURON_FIELDS: dict[str, Callable[[Neuron, Addresses], Value]] = {
    "uid": lambda neuron, addresses: neuron.uid,
    "hotkey": lambda neuron, addresses: addresses.of(neuron.hotkey),
    "coldkey": lambda neuron, addresses: addresses.of(neuron.coldkey),
    "stake": lambda neuron, addresses: neuron.stake_rao / RAO_PER_TAO,
    "stake_rao": lambda neuron, addresses: neuron.stake_rao,
    "alpha_stake_rao": lambda neuron, addresses: neuron.alpha_stake_rao,
    "tao_stake_rao": lambda neuron, addresses: neuron.tao_stake_rao,
    "validator_permit": lambda neuron, addresses: neuron.validator_permit,
    "active": lambda neuron, addresses: neuron.active,
    "incentive": lambda neuron, addresses: _share(neuron.incentive_u16),
    "consensus": lambda neuron, addresses: _share(neuron.consensus_u16),
    "dividends": lambda neuron, addresses: _share(neuron.dividends_u16),
    "emission_rao": lambda neuron, addresses: neuron.emission_rao,
    "ip": lambda neuron, addresses: None if neuron.axon is None else neuron.axon.ip,
    "port": lambda neuron, addresses: None if neuron.axon is None else neuron.axon.port,
    "last_update": lambda neuron, addresses: neuron.last_update_block,
    "registered_at": lambda neuron, addresses: neuron.registered_at_block,
}
"""What `fields=` may name. Shares are of 1; `stake` is in TAO; `last_update` and `registered_at` are block numbers."""


class MetagraphAnswer(msgspec.Struct, frozen=True):
    """What the surface sends: 200 with a body, or 304 without."""

    status: int
    etag: str
    body: bytes
    age_s: float
    """Since the metagraph was read; for an Age header, the body does not change with it."""


def metagraph_answer(
    view: Subnets, netuid: int, fields: str | None = None, if_none_match: str | None = None
) -> MetagraphAnswer:
    """The answer for a subnet, encoded once per block and selection.

    `fields` is the raw query value: a comma-separated selection of NEURON_FIELDS (those of HEAD_FIELDS are
    allowed and always sent); None selects all, and no neuron field at all leaves the neurons out.
    Raises SubnetNotSynced, or UnknownField.
    """
    selected = select(fields)
    metagraph = view.get(netuid)
    if metagraph is None:
        raise SubnetNotSynced(netuid, view.synced)
    encoded = encoded_body(view, metagraph, selected)
    age_s = metagraph.age_s(view.now_s)
    if if_none_match is not None and matches(if_none_match, encoded.etag):
        return MetagraphAnswer(304, encoded.etag, b"", age_s)
    return MetagraphAnswer(200, encoded.etag, encoded.body, age_s)


def encoded_body(view: Subnets, metagraph: Metagraph, selected: tuple[str, ...]) -> EncodedBody:
    """The body that is kept, encoded now if it is none yet: under 1 ms for 256 neurons whose addresses are known."""
    kept = view.bodies.get(metagraph, selected)
    if kept is not None:
        return kept
    body = encode(metagraph, view.state.network, selected, view.bodies.addresses)
    return view.bodies.put(metagraph, selected, body)


async def prepare(view: Subnets, metagraph: Metagraph) -> None:
    """Encodes the whole answer ahead of the first request, in steps that each keep the loop for under 1 ms."""
    for first in range(0, len(metagraph.neurons), NEURONS_A_STEP):
        for neuron in metagraph.neurons[first : first + NEURONS_A_STEP]:
            view.bodies.addresses.of(neuron.hotkey)
            view.bodies.addresses.of(neuron.coldkey)
        await trio.lowlevel.checkpoint()
    encoded_body(view, metagraph, tuple(NEURON_FIELDS))


def select(fields: str | None) -> tuple[str, ...]:
    """The neuron fields that `fields=` names, in the order of NEURON_FIELDS, always with uid. Raises UnknownField."""
    if fields is None:
        return tuple(NEURON_FIELDS)
    wanted = {name.strip() for name in fields.split(",")} - {"", "neurons", *HEAD_FIELDS}
    unknown = wanted - NEURON_FIELDS.keys()
    if unknown:
        raise UnknownField(sorted(unknown)[:10], tuple(NEURON_FIELDS))
    return tuple(name for name in NEURON_FIELDS if name in wanted or name == "uid") if wanted else ()


def encode(metagraph: Metagraph, network: str, selected: Sequence[str], addresses: Addresses) -> bytes:
    """The JSON body; no `neurons` when nothing of them is selected."""
    document: dict[str, object] = {
        "network": network,
        "block": metagraph.block,
        "netuid": metagraph.netuid,
        "note": note(metagraph, network),
    }
    if selected:
        getters = [(name, NEURON_FIELDS[name]) for name in selected]
        document["neurons"] = [
            {name: getter(neuron, addresses) for name, getter in getters} for neuron in metagraph.neurons
        ]
    return msgspec.json.encode(document)


def note(metagraph: Metagraph, network: str) -> str:
    """What a reader should know of where this comes from."""
    if metagraph.endpoint == "recording":
        return f"A recording of runtime {metagraph.spec_version} that ships with Engram ({network}), no live network."
    witness = ", confirmed by a second endpoint" if metagraph.witness else ""
    return f"Read at a finalized block of {network}{witness}."


def matches(if_none_match: str, etag: str) -> bool:
    """Whether an If-None-Match value names this ETag (weak comparison, RFC 9110 13.1.2)."""
    named = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in named or etag in named
