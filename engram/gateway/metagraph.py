"""The answer to GET /bittensor/metagraph, from memory and encoded once per block and selection of fields."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, final

import msgspec
import trio

from engram.chain.model import MECHANISM_MAX_U16, RAO_PER_TAO, Metagraph, Neuron
from engram.chain.sync.subnets import Subnets
from engram.gateway.replies import shortened
from engram.hotkeys import PublicKey, ss58
from engram.http.errors import ApiError

HEAD_FIELDS: Final = ("network", "block", "netuid", "note")
"""The fields of the original's answer; always present."""
BODIES_KEPT: Final = 64
"""Beyond this the least recently used body is dropped."""
ADDRESSES_KEPT: Final = 20_000
NEURONS_PER_STEP: Final = 64

Value = int | float | str | bool | None


@final
class Addresses:
    """A cache of ss58 addresses by public key: each takes 6 µs to compute, and few ever change."""

    def __init__(self) -> None:
        self._texts: dict[PublicKey, str] = {}

    def __len__(self) -> int:
        return len(self._texts)

    def of(self, public_key: PublicKey) -> str:
        """Return the address of a 32-byte key."""
        text = self._texts.get(public_key)
        if text is None:
            if len(self._texts) >= ADDRESSES_KEPT:
                self._texts.clear()
            text = self._texts[public_key] = ss58.encode(public_key)
        return text


def _share(value: int) -> float:
    return round(value / MECHANISM_MAX_U16, 6)


NEURON_FIELDS: Final[dict[str, Callable[[Neuron, Addresses], Value]]] = {
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
"""The fields that `fields=` may name. Shares are fractions of 1; `stake` is in TAO; `last_update` and `registered_at`
are block numbers."""


class ConditionalAnswer(msgspec.Struct, frozen=True):
    """200 with a body, or 304 without one."""

    status: int
    etag: str
    body: bytes
    age_s: float
    """Seconds since the metagraph was read, for the Age header; the body does not depend on it."""


class EncodedBody(msgspec.Struct, frozen=True):
    """A JSON body and its strong entity tag."""

    metagraph: Metagraph
    etag: str
    body: bytes


@final
class MetagraphAnswers:
    """Answers from the newest metagraphs, with at most BODIES_KEPT encoded bodies cached by subnet and fields.

    A body belongs to one metagraph: one of an older block is never sent.
    """

    def __init__(self, subnets: Subnets) -> None:
        self._subnets = subnets
        self._addresses = Addresses()
        self._bodies: OrderedDict[tuple[int, tuple[str, ...]], EncodedBody] = OrderedDict()

    def __len__(self) -> int:
        return len(self._bodies)

    async def answer(
        self, netuid: int, fields: str | None = None, if_none_match: str | None = None
    ) -> ConditionalAnswer:
        """Return the answer for a subnet, encoded on the first request after the block was read.

        `fields` is the raw query value: a comma-separated selection of NEURON_FIELDS (those of HEAD_FIELDS are
        allowed and always sent); None selects all, and a selection without neuron fields leaves the neurons out.
        Raises ApiError: 400 unknown_field, 404 netuid_not_synced.
        """
        selected = select(fields)
        metagraph = self._newest(netuid)
        if selected and self._cached(metagraph, selected) is None:
            await self._compute_addresses(metagraph)
            metagraph = self._newest(netuid)
        encoded = self._encoded(metagraph, selected)
        age_s = metagraph.age_s(self._subnets.now_s)
        if if_none_match is not None and matches(if_none_match, encoded.etag):
            return ConditionalAnswer(304, encoded.etag, b"", age_s)
        return ConditionalAnswer(200, encoded.etag, encoded.body, age_s)

    def _newest(self, netuid: int) -> Metagraph:
        metagraph = self._subnets.get(netuid)
        if metagraph is None:
            synced = self._subnets.synced
            names = ", ".join(map(str, synced)) or "none"
            message = f"subnet {netuid} is not synced here; synced: {names}"
            raise ApiError(404, "netuid_not_synced", message, extra={"synced": list(synced)})
        return metagraph

    async def _compute_addresses(self, metagraph: Metagraph) -> None:
        """Fill the cache of addresses, which take most of the time, in steps that each hold the loop for under 1 ms."""
        for first in range(0, len(metagraph.neurons), NEURONS_PER_STEP):
            for neuron in metagraph.neurons[first : first + NEURONS_PER_STEP]:
                self._addresses.of(neuron.hotkey)
                self._addresses.of(neuron.coldkey)
            await trio.lowlevel.checkpoint()

    def _encoded(self, metagraph: Metagraph, selected: tuple[str, ...]) -> EncodedBody:
        cached = self._cached(metagraph, selected)
        if cached is not None:
            return cached
        body = encode(metagraph, self._subnets.state.network, selected, self._addresses)
        etag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
        key = metagraph.netuid, selected
        encoded = self._bodies[key] = EncodedBody(metagraph, etag, body)
        self._bodies.move_to_end(key)
        if len(self._bodies) > BODIES_KEPT:
            self._bodies.popitem(last=False)
        return encoded

    def _cached(self, metagraph: Metagraph, selected: tuple[str, ...]) -> EncodedBody | None:
        key = metagraph.netuid, selected
        cached = self._bodies.get(key)
        if cached is None or cached.metagraph is not metagraph:
            return None
        self._bodies.move_to_end(key)
        return cached


def select(fields: str | None) -> tuple[str, ...]:
    """Return the neuron fields that `fields=` names, in the order of NEURON_FIELDS, always with uid.

    Raises ApiError 400 unknown_field.
    """
    if fields is None:
        return tuple(NEURON_FIELDS)
    wanted = {name.strip() for name in fields.split(",")} - {"", "neurons", *HEAD_FIELDS}
    unknown = sorted(wanted - NEURON_FIELDS.keys())
    if unknown:
        message = f"unknown fields {', '.join(unknown[:10])}; known: {', '.join(NEURON_FIELDS)}"
        raise ApiError(400, "unknown_field", shortened(message))
    return tuple(name for name in NEURON_FIELDS if name in wanted or name == "uid") if wanted else ()


def encode(metagraph: Metagraph, network: str, selected: tuple[str, ...], addresses: Addresses) -> bytes:
    """Return the JSON body, without `neurons` when no field of theirs is selected."""
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
    """Return one sentence on the source of the data."""
    if metagraph.endpoint == "recording":
        return f"A recording of runtime {metagraph.spec_version} that ships with Engram ({network}), no live network."
    witness = ", confirmed by a second endpoint" if metagraph.witness else ""
    return f"Read at a finalized block of {network}{witness}."


def matches(if_none_match: str, etag: str) -> bool:
    """Return whether an If-None-Match value names this ETag (weak comparison, RFC 9110 13.1.2)."""
    named = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in named or etag in named
