"""The recorded bytes, and metagraphs built by hand."""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

from engram.chain.model import Axon, FinalizedBlock, Metagraph, Neuron, SubnetParameters
from engram.chain.read.codec import Codec
from engram.chain.read.recorded.node import read_recording

DATA = Path(__file__).parent.parent / "data" / "chain"


@cache
def recorded_metagraph() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gzip.decompress((DATA / "metagraph-450.json.gz").read_bytes()))
    return found


@cache
def rpc_recordings() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(gzip.decompress((DATA / "rpc-recordings.json.gz").read_bytes()))
    return found


@cache
def metadata() -> bytes:
    return bytes.fromhex(read_recording().metadata[2:])


@cache
def codec() -> Codec:
    return Codec(metadata(), 293, 1)


@cache
def scale() -> bytes:
    return bytes.fromhex(recorded_metagraph()["scale"][2:])


def encoded(**changed: object) -> bytes:
    """The recorded metagraph with other values in some fields, as a runtime would encode it."""
    types = codec()
    fields = {**(types.decode_fields(scale()) or {}), **changed}
    octets: bytes = types._runtime.encode(types._metagraph_type, fields)
    return octets


def recorded_head() -> FinalizedBlock:
    return FinalizedBlock(1100, bytes.fromhex(recorded_metagraph()["block_hash"][2:]))


def read(scale_bytes: bytes, netuid: int = 450, head: FinalizedBlock | None = None) -> Metagraph:
    fields = codec().decode_fields(scale_bytes)
    return codec().metagraph(fields, netuid, head or recorded_head(), read_at_s=0.0, endpoint="recording", witness=None)


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def neuron(uid: int, hotkey: int, *, permit: bool = False, axon: Axon | None = None, stake_rao: int = 0) -> Neuron:
    return Neuron(
        uid=uid,
        hotkey=key(hotkey),
        coldkey=key(1),
        stake_rao=stake_rao,
        alpha_stake_rao=stake_rao,
        tao_stake_rao=0,
        validator_permit=permit,
        active=True,
        incentive_u16=0,
        consensus_u16=0,
        dividends_u16=0,
        emission_rao=0,
        last_update_block=1,
        registered_at_block=1,
        axon=axon,
        trust_u16=None,
        rank_u16=None,
        pruning_score_u16=None,
    )


def metagraph(*neurons: Neuron, netuid: int = 450, block: int = 1100, read_at_s: float = 0.0) -> Metagraph:
    return Metagraph(
        netuid=netuid,
        block=block,
        block_hash=key(block),
        spec_version=293,
        name="test",
        owner_hotkey=key(1),
        owner_coldkey=key(1),
        parameters=SubnetParameters(
            tempo=10,
            max_uids=256,
            max_validators=64,
            burn_rao=1,
            registration_allowed=True,
            immunity_period_blocks=1,
            activity_cutoff_blocks=1,
            serving_rate_limit_blocks=0,
            weights_rate_limit_blocks=0,
            weights_version=0,
            min_allowed_weights=1,
            max_weights_limit=65_535,
            commit_reveal_weights_enabled=False,
            commit_reveal_period_tempos=1,
        ),
        neurons=neurons,
        uid_by_hotkey={one.hotkey: one.uid for one in neurons},
        read_at_s=read_at_s,
        endpoint="test",
        witness=None,
    )
