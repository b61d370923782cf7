"""Reads what validators send one another: proposals and bundles, with every hash and signature checked."""

from collections.abc import Collection
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from engram import wire
from engram.hotkeys import MalformedHotkey, PublicKey, ss58, verify
from engram.relay.errors import RelayError
from engram.relay.model import SCHEMA_VERSION, SCHEMA_VERSION_2, MinerScore, Ranked
from engram.relay.quorum.model import COSIGNATURES_MOST, Cosignature, Proposal
from engram.relay.rules import is_in_order, output_hash, stable_ranking, stable_scores
from engram.relay.signer import is_signed

HASH_BYTES: Final = 32
VERSIONS: Final = {"scores": SCHEMA_VERSION, "ranking": SCHEMA_VERSION_2}
"""The schema of each kind that validators sign for one another."""


class MalformedProposal(RelayError):
    """It is no signed payload of scores or a ranking, or a hash or signature of it does not hold."""


class _Signed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    schema_version: str
    kind: str = "scores"
    netuid: int
    block: int
    round_ts: float
    output_hash: str
    nonce: str
    scores: dict[str, MinerScore] | UnsetType = UNSET
    ranking: list[Ranked] | UnsetType = UNSET
    validator_hotkey: str
    signature: str
    signed_hash: str
    cosignatures: list[Cosignature] = []


def read_proposal(document: bytes, block_hash: str) -> Proposal:
    """Return the proposal. Raises MalformedProposal."""
    try:
        of_block = bytes.fromhex(block_hash.removeprefix("0x"))
    except ValueError:
        of_block = b""
    if len(of_block) != HASH_BYTES:
        raise MalformedProposal(f"block_hash {block_hash[:80]!r} is not 32 bytes in hex")
    return _proposal(document, of_block)[0]


def read_bundle(document: bytes) -> tuple[Proposal, frozenset[PublicKey]]:
    """Return the proposal of a bundle and every key that has signed it. Raises MalformedProposal."""
    proposal, cosignatures = _proposal(document, b"")
    if len(cosignatures) > COSIGNATURES_MOST:
        raise MalformedProposal(f"{len(cosignatures)} co-signatures; at most {COSIGNATURES_MOST} are read")
    keys = {proposal.proposer}
    for each in cosignatures:
        keys.add(cosigner(proposal, each.hotkey, each.signature, keys))
    return proposal, frozenset(keys)


def cosigner(proposal: Proposal, hotkey: str, signature: str, others: Collection[PublicKey] = ()) -> PublicKey:
    """Return the key of a co-signature. Raises MalformedProposal when it does not hold, or is one of `others`."""
    try:
        key, octets = ss58.decode(hotkey), bytes.fromhex(signature.removeprefix("0x"))
    except (MalformedHotkey, ValueError):
        raise MalformedProposal(f"the co-signature of {hotkey[:60]!r} cannot be read") from None
    if not verify(key, proposal.signed_hash.encode("ascii"), octets, allow_wrapped=False):
        raise MalformedProposal(f"the co-signature of {hotkey[:60]} does not hold")
    if key in others:
        raise MalformedProposal(f"{ss58.encode(key)} has signed twice: two spellings of a key are one key")
    return key


def _proposal(document: bytes, block_hash: bytes) -> tuple[Proposal, list[Cosignature]]:
    try:
        fields = wire.decode(document, dict[str, object])
        wire.require_unique_names(document)
        found = wire.convert(fields, _Signed)
        stable = _stable(found)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise MalformedProposal(f"not a signed payload of scores or a ranking: {error}") from None
    if not 0 <= found.block < 2**53 or not 0 <= found.netuid < 2**16:
        raise MalformedProposal("netuid or block is out of range")
    if output_hash(stable) != found.output_hash:
        raise MalformedProposal(f"output_hash is not the hash of the {found.kind}")
    if not found.nonce.startswith(f"{found.block}:"):
        raise MalformedProposal(f"nonce {found.nonce[:80]!r} is not of block {found.block}")
    if not is_signed({name: value for name, value in fields.items() if name != "cosignatures"}):
        raise MalformedProposal(f"the signature is not that of {found.validator_hotkey[:60]} over this payload")
    proposal = Proposal(
        kind=found.kind,
        netuid=found.netuid,
        block=found.block,
        block_hash=block_hash,
        proposer=ss58.decode(found.validator_hotkey),
        output_hash=found.output_hash,
        signed_hash=found.signed_hash,
        document=document,
        scores=found.scores or {},
        ranking=found.ranking or (),
    )
    return proposal, found.cosignatures


def _stable(found: _Signed) -> bytes:
    """Return what is hashed of the one output that it holds. Raises MalformedProposal, and ValueError as hashing."""
    if (wanted := VERSIONS.get(found.kind)) is None:
        raise MalformedProposal(f"kind {found.kind[:40]!r} is none of {', '.join(VERSIONS)}")
    if found.schema_version != wanted:
        raise MalformedProposal(f"schema_version of {found.kind} is {found.schema_version[:40]!r}, not {wanted}")
    match found:
        case _Signed(kind="scores", scores=dict() as scores, ranking=UnsetType()):
            return stable_scores(scores)
        case _Signed(kind="ranking", ranking=list() as ranking, scores=UnsetType()):
            if not is_in_order(ranking):
                raise MalformedProposal("ranks count from 1, by falling weights, and each miner is there once")
            return stable_ranking(ranking)
        case _:
            raise MalformedProposal(f"a payload of kind {found.kind} has that output and no other")
