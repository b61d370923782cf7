"""SCALE to Engram: decodes what the runtime says, by the runtime's own metadata (bittensor-core).

Nothing about the layout is written down here: field names are the runtime's, types come from metadata V15. What
is checked beyond the codec's own strictness (lengths, trailing bytes, canonical forms) is that the vectors agree
with each other and with the block that was asked for.
"""

import ipaddress
from typing import final

import bittensor_core
import msgspec

from engram import wire
from engram.chain.errors import AnswerMalformed, RuntimeApiMissing, SubnetUnknown
from engram.chain.model import Axon, FinalizedBlock, Metagraph, Neuron, SubnetParameters
from engram.chain.read.type_names import check_type_names

SS58_PREFIX = 42
METADATA_VERSION = 15
API = "SubnetInfoRuntimeApi"
METAGRAPH_METHOD = "get_metagraph"
METAGRAPH_CALL = f"{API}_{METAGRAPH_METHOD}"
METADATA_CALL = "Metadata_metadata_at_version"
METADATA_PARAMS = "0x0f000000"
ADDRESSES_KEPT = 20_000
"""ss58 texts whose 32 bytes are remembered, so that an unchanged subnet costs no base58."""


class _RawAxon(msgspec.Struct):
    block: int
    version: int
    ip: int
    port: int
    ip_type: int
    protocol: int


class _RawMetagraph(msgspec.Struct):
    netuid: int
    name: list[int]
    block: int
    owner_hotkey: str
    owner_coldkey: str
    num_uids: int
    tempo: int
    max_uids: int
    max_validators: int
    burn: int
    registration_allowed: bool
    immunity_period: int
    activity_cutoff: int
    serving_rate_limit: int
    weights_rate_limit: int
    weights_version: int
    min_allowed_weights: int
    max_weights_limit: int
    commit_reveal_weights_enabled: bool
    commit_reveal_period: int
    hotkeys: list[str]
    coldkeys: list[str]
    axons: list[_RawAxon]
    active: list[bool]
    validator_permit: list[bool]
    last_update: list[int]
    emission: list[int]
    dividends: list[int]
    incentives: list[int]
    consensus: list[int]
    block_at_registration: list[int]
    alpha_stake: list[int]
    tao_stake: list[int]
    total_stake: list[int]
    last_step: int = 0
    trust: list[int] = msgspec.field(default_factory=list)
    rank: list[int] = msgspec.field(default_factory=list)
    pruning_score: list[int] = msgspec.field(default_factory=list)


_PER_UID = [
    "hotkeys",
    "coldkeys",
    "axons",
    "active",
    "validator_permit",
    "last_update",
    "emission",
    "dividends",
    "incentives",
    "consensus",
    "block_at_registration",
    "alpha_stake",
    "tao_stake",
    "total_stake",
]
_PER_UID_OR_EMPTY = ("trust", "rank", "pruning_score")


@final
class Codec:
    """The types of one runtime version. Cheap to keep (4 MB), 4 ms of CPU to make: once per runtime upgrade.

    Raises AnswerMalformed when `metadata` is not what `Metadata_metadata_at_version(15)` answers, and
    RuntimeApiMissing when the runtime offers no metagraph.
    """

    def __init__(self, metadata: bytes, spec_version: int, transaction_version: int) -> None:
        self.spec_version = spec_version
        try:
            self._runtime = bittensor_core.Runtime(
                unwrap_metadata(metadata), spec_version, transaction_version, SS58_PREFIX
            )
            apis = self._runtime.runtime_api_map()
        except ValueError as error:
            raise AnswerMalformed(f"metadata of runtime {spec_version}: {error}") from error
        try:
            method = apis[API][METAGRAPH_METHOD]
            self._netuid_type: str = method["inputs"][0][1]
            self._metagraph_type: str = method["output"]
        except (KeyError, IndexError) as error:
            raise RuntimeApiMissing(f"runtime {spec_version} has no {METAGRAPH_CALL}") from error
        self._addresses: dict[str, bytes] = {}

    def metagraph_params(self, netuid: int) -> str:
        """Return the encoded argument of the metagraph call, as 0x hex. Raises SubnetUnknown when out of range."""
        try:
            encoded: bytes = self._runtime.encode(self._netuid_type, netuid)
        except (ValueError, OverflowError) as error:
            raise SubnetUnknown(netuid) from error
        return "0x" + encoded.hex()

    def decode_fields(self, scale: bytes) -> dict[str, object] | None:
        """Return all fields of a metagraph by the runtime's own names; None for an unknown subnet.

        Raises AnswerMalformed when the bytes are not exactly one value of the type.
        """
        try:
            fields: dict[str, object] | None = self._runtime.decode(self._metagraph_type, scale)
        except ValueError as error:
            raise AnswerMalformed(f"metagraph bytes: {error}") from error
        return fields

    def metagraph(
        self,
        fields: dict[str, object] | None,
        netuid: int,
        head: FinalizedBlock,
        *,
        read_at_s: float,
        endpoint: str,
        witness: str | None,
    ) -> Metagraph:
        """Return the typed metagraph of decoded fields.

        Raises SubnetUnknown, or AnswerMalformed when the fields contradict each other, the netuid or the block
        that was asked for.
        """
        if fields is None:
            raise SubnetUnknown(netuid)
        try:
            raw = wire.convert(fields, _RawMetagraph)
        except msgspec.ValidationError as error:
            raise AnswerMalformed(f"metagraph of subnet {netuid}: {error}") from error
        _check(raw, netuid, head)
        hotkeys = [self._public_key(text) for text in raw.hotkeys]
        uid_by_hotkey = {hotkey: uid for uid, hotkey in enumerate(hotkeys)}
        if len(uid_by_hotkey) != len(hotkeys):
            raise AnswerMalformed(f"metagraph of subnet {netuid}: one hotkey holds two uids")
        return Metagraph(
            netuid=netuid,
            block=raw.block,
            block_hash=head.hash,
            spec_version=self.spec_version,
            name=_text(raw.name),
            owner_hotkey=self._public_key(raw.owner_hotkey),
            owner_coldkey=self._public_key(raw.owner_coldkey),
            parameters=_parameters(raw),
            neurons=tuple(self._neuron(raw, uid, hotkey) for uid, hotkey in enumerate(hotkeys)),
            uid_by_hotkey=uid_by_hotkey,
            read_at_s=read_at_s,
            endpoint=endpoint,
            witness=witness,
            last_epoch_block=raw.last_step,
        )

    def _neuron(self, raw: _RawMetagraph, uid: int, hotkey: bytes) -> Neuron:
        return Neuron(
            uid=uid,
            hotkey=hotkey,
            coldkey=self._public_key(raw.coldkeys[uid]),
            stake_rao=raw.total_stake[uid],
            alpha_stake_rao=raw.alpha_stake[uid],
            tao_stake_rao=raw.tao_stake[uid],
            validator_permit=raw.validator_permit[uid],
            active=raw.active[uid],
            incentive_u16=raw.incentives[uid],
            consensus_u16=raw.consensus[uid],
            dividends_u16=raw.dividends[uid],
            emission_rao=raw.emission[uid],
            last_update_block=raw.last_update[uid],
            registered_at_block=raw.block_at_registration[uid],
            axon=_axon(raw.axons[uid]),
            trust_u16=raw.trust[uid] if raw.trust else None,
            rank_u16=raw.rank[uid] if raw.rank else None,
            pruning_score_u16=raw.pruning_score[uid] if raw.pruning_score else None,
        )

    def _public_key(self, text: str) -> bytes:
        known = self._addresses.get(text)
        if known is None:
            if len(self._addresses) >= ADDRESSES_KEPT:
                self._addresses.clear()
            try:
                known = bytes(bittensor_core.decode_ss58(text))
            except ValueError as error:
                raise AnswerMalformed(f"{text[:100]!r} is no account: {error}") from error
            self._addresses[text] = known
        return known


def unwrap_metadata(answer: bytes) -> bytes:
    """Return the metadata inside the `Option<OpaqueMetadata>` that the runtime answers. Raises AnswerMalformed."""
    if answer[:1] != b"\x01":
        raise AnswerMalformed(f"the runtime has no metadata of version {METADATA_VERSION}")
    mode = answer[1] & 3 if len(answer) > 1 else 3
    width = (1, 2, 4, 0)[mode]
    start = 1 + width
    length = int.from_bytes(answer[1:start], "little") >> 2
    if mode == 3 or len(answer) != start + length:
        raise AnswerMalformed("metadata is cut off or too long")
    metadata = answer[start:]
    check_type_names(metadata)
    return metadata


def _check(raw: _RawMetagraph, netuid: int, head: FinalizedBlock) -> None:
    if raw.netuid != netuid:
        raise AnswerMalformed(f"asked for subnet {netuid}, answered subnet {raw.netuid}")
    if raw.block != head.number:
        raise AnswerMalformed(f"metagraph of subnet {netuid} is of block {raw.block}, asked for block {head.number}")
    if raw.num_uids > raw.max_uids:
        raise AnswerMalformed(f"metagraph of subnet {netuid}: {raw.num_uids} uids, at most {raw.max_uids} may be")
    for name in _PER_UID:
        if len(getattr(raw, name)) != raw.num_uids:
            raise AnswerMalformed(f"metagraph of subnet {netuid}: {name} is not of {raw.num_uids} uids")
    for name in _PER_UID_OR_EMPTY:
        if len(getattr(raw, name)) not in (0, raw.num_uids):
            raise AnswerMalformed(f"metagraph of subnet {netuid}: {name} is not of {raw.num_uids} uids")


def _parameters(raw: _RawMetagraph) -> SubnetParameters:
    return SubnetParameters(
        tempo=raw.tempo,
        max_uids=raw.max_uids,
        max_validators=raw.max_validators,
        burn_rao=raw.burn,
        registration_allowed=raw.registration_allowed,
        immunity_period_blocks=raw.immunity_period,
        activity_cutoff_blocks=raw.activity_cutoff,
        serving_rate_limit_blocks=raw.serving_rate_limit,
        weights_rate_limit_blocks=raw.weights_rate_limit,
        weights_version=raw.weights_version,
        min_allowed_weights=raw.min_allowed_weights,
        max_weights_limit=raw.max_weights_limit,
        commit_reveal_weights_enabled=raw.commit_reveal_weights_enabled,
        commit_reveal_period_tempos=raw.commit_reveal_period,
    )


def _axon(raw: _RawAxon) -> Axon | None:
    """Return None for an announcement that is not an address: anyone may announce anything."""
    if raw.port == 0 or raw.ip == 0:
        return None
    try:
        ip = ipaddress.IPv6Address(raw.ip) if raw.ip_type == 6 else ipaddress.IPv4Address(raw.ip)
    except ipaddress.AddressValueError:
        return None
    return Axon(ip=str(ip), port=raw.port, version=raw.version, protocol=raw.protocol, block=raw.block)


def _text(octets: list[int]) -> str:
    return bytes(octet & 0xFF for octet in octets).decode("utf-8", "replace")
