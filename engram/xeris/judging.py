"""Whether a payload is accepted: every check in the order of the table in refusals.py, each with one code. No I/O."""

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from engram import wire
from engram.hotkeys import MalformedHotkey, PublicKey, ss58, verify
from engram.relay import is_signed
from engram.relay.anchoring.rules import LEAVES_MOST, root_of
from engram.relay.model import SCHEMA_VERSION, SCHEMA_VERSION_2, MinerScore, NodeMemory, Ranked, SignedRoot, ToolCall
from engram.relay.quorum.model import COSIGNATURES_MOST, Cosignature
from engram.relay.roots import RootRefused, require_root
from engram.relay.rules import (
    ANCHORED_KINDS,
    OF_VALIDATORS,
    is_in_order,
    output_hash,
    signed_hash,
    stable_anchor,
    stable_nodes,
    stable_ranking,
    stable_scores,
)
from engram.relay.schemas import SCHEMAS, TAKEN
from engram.xeris.refusals import STATUS

SKEW_S: Final = 120.0
NONCE_MOST: Final = 256
"""Characters."""
GAP_BYTES: Final = 4_096
"""Of a gap marker, as it comes."""
GAPS_MOST: Final = 256
"""Gap markers of one signer, subnet and block."""
_OF_GAPS: Final = frozenset(SCHEMAS["gap"]["properties"])
_HASH: Final = re.compile(r"[0-9a-f]{64}")


class Refused(Exception):
    """The payload is not accepted. `code` is one of refusals.REFUSALS."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.status = STATUS[code]


class _Signed(msgspec.Struct, frozen=True, kw_only=True):
    schema_version: str
    netuid: int
    block: int
    round_ts: float
    output_hash: str
    nonce: str
    validator_hotkey: str
    signature: str
    signed_hash: str
    kind: str = "scores"
    scores: dict[str, MinerScore] | None = None
    nodes: dict[str, NodeMemory] | None = None
    ranking: list[Ranked] | None = None
    parked: str | None = None
    reason: str | None = None
    cosignatures: list[Cosignature] = []
    tool: ToolCall | UnsetType = UNSET
    anchored: str | None = None
    epoch: int | None = None
    root: str | None = None
    leaves: list[str] | None = None
    first: int | None = None
    count: int | None = None


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """The leaves under a committed root; those from `first` on are of the stream `anchored`."""

    anchored: str
    epoch: int
    root: str
    leaves: list[str]
    first: int
    count: int

    @property
    def own(self) -> list[str]:
        """The leaves of the stream, in their order."""
        return self.leaves[self.first : self.first + self.count]


FREE: Final = frozenset({"gap", "anchor"})
"""Kinds that say something of other payloads, and cost nothing."""


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A payload whose form, hashes and signatures hold."""

    schema_version: str
    kind: str
    """scores | memory | ranking | gap | anchor"""
    netuid: int
    block: int
    round_ts: float
    output_hash: str
    nonce: str
    source: str
    """The part of the nonce that tells payloads of one block apart."""
    signer: PublicKey
    cosigners: tuple[PublicKey, ...]
    signed_hash: str
    document: bytes
    """As it came."""
    nodes: Mapping[str, NodeMemory] = {}
    anchor: Anchor | None = None

    @property
    def is_paid_for(self) -> bool:
        """Whether it uses a submission where they cost something: what others learn from does."""
        return self.kind not in FREE

    @property
    def keys(self) -> frozenset[PublicKey]:
        """All keys that have signed."""
        return frozenset((self.signer, *self.cosigners))


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What the receiver knows that the payload is held against."""

    same_nonce: str | None
    """signed_hash that this kind and nonce came with before."""
    signed_before: str | None
    """Another output_hash that one of the signers signed for this subnet, kind, block and source before."""
    permits: Collection[PublicKey] | None
    """Keys with a validator permit at the payload's block; None where that is not known (yet)."""
    gateways: Collection[PublicKey]
    quorum: int
    netuids: Collection[int]
    """The subnets that are served."""
    gaps: int = 0
    """Gap markers of its signer that were accepted of its subnet and block."""
    finalized: int | None = None
    """The newest finalized block; None where the chain is not read."""


def read(body: bytes, now: float, keep_s: float, taken: Mapping[str, Collection[str]] = TAKEN) -> Submission:
    """Return the payload in `body`, its form, hashes and signatures checked. Raises Refused.

    `taken` has the versions of each kind that this receiver takes.
    """
    try:
        document = wire.decode(body, dict[str, Any])
        wire.require_unique_names(body)
        found = wire.convert(document, _Signed)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused("schema", f"not a payload of the relay: {error}") from None
    _require_schema(found, taken)
    if found.kind == "gap":
        _require_gap(found, document, len(body))
    if found.round_ts > now + SKEW_S:
        raise Refused("from_the_future", f"round_ts is {found.round_ts - now:.0f} s ahead of this clock: send it later")
    if found.round_ts < now - keep_s:
        raise Refused("too_old", f"round_ts is {now - found.round_ts:.0f} s old; {keep_s:.0f} s are kept")
    if (stable := _stable(found)) is not None and output_hash(stable) != found.output_hash:
        raise Refused("output_hash", "output_hash is not the hash of the output")
    block, _, rest = found.nonce.partition(":")
    source = rest.rpartition(":")[0]
    if block != str(found.block) or not source or len(found.nonce) > NONCE_MOST or "\0" in found.nonce:
        raise Refused("nonce", f"nonce {found.nonce[:80]!r} is not block:source:milliseconds of block {found.block}")
    unsigned = {name: value for name, value in document.items() if name != "cosignatures"}
    if not is_signed(unsigned):
        raise Refused("signature", f"the signature is not that of {found.validator_hotkey[:60]} over this payload")
    signer = ss58.decode(found.validator_hotkey)
    return Submission(
        schema_version=found.schema_version,
        kind=found.kind,
        netuid=found.netuid,
        block=found.block,
        round_ts=found.round_ts,
        output_hash=found.output_hash,
        nonce=found.nonce,
        source=source,
        signer=signer,
        cosigners=_cosigners(found, signer, signed_hash(unsigned)),
        signed_hash=found.signed_hash,
        document=body,
        nodes=found.nodes or {},
        anchor=_anchor(found),
    )


def _require_schema(found: _Signed, taken: Mapping[str, Collection[str]]) -> None:
    if not 0 <= found.netuid < 2**16 or not 0 <= found.block < 2**53 or not 0 <= (found.epoch or 0) < 2**53:
        raise Refused("schema", "netuid, block or epoch is out of range")
    missing = {
        "scores": found.scores is None,
        "memory": found.nodes is None,
        "ranking": found.ranking is None,
        "gap": found.parked is None or found.reason is None,
        "anchor": found.kind == "anchor" and None in _anchor_fields(found).values(),
    }
    if found.kind not in missing or found.kind not in taken:
        raise Refused("schema", f"kind {found.kind[:40]!r} is none of {', '.join(taken)}")
    if found.schema_version not in taken[found.kind]:
        text = f"schema_version {found.schema_version[:40]!r} of {found.kind} is none of {', '.join(taken[found.kind])}"
        raise Refused("schema", f"{text} (GET /schemas)")
    if missing[found.kind]:
        raise Refused("schema", f"a payload of kind {found.kind} has not its output")
    if found.kind == "anchor" and found.anchored not in ANCHORED_KINDS:
        raise Refused("schema", f"outputs of kind {(found.anchored or '')[:40]!r} are not anchored")
    if not is_in_order(found.ranking or []):
        raise Refused("schema", "ranks count from 1, by falling weights, and each miner is there once")
    for name, node in (found.nodes or {}).items():
        if isinstance(node.root, UnsetType) is not (found.schema_version == SCHEMA_VERSION):
            text = f"a node has a root (or null) in {SCHEMA_VERSION_2} and none in {SCHEMA_VERSION}"
            raise Refused("schema", f"{text}: node {name[:60]}")
        signed = node.root.root_hex if isinstance(node.root, SignedRoot) else None
        if found.schema_version != SCHEMA_VERSION and node.root_hex != signed:
            raise Refused("schema", f"root_hex of node {name[:60]} is not that of its root")


def _require_gap(found: _Signed, document: Mapping[str, Any], size: int) -> None:
    if size > GAP_BYTES:
        raise Refused("schema", f"a gap marker has at most {GAP_BYTES} bytes, not {size}")
    if foreign := sorted(document.keys() - _OF_GAPS):
        raise Refused("schema", f"a gap marker has no {foreign[0][:40]!r}")
    if not _HASH.fullmatch(found.output_hash):
        raise Refused("schema", f"output_hash {found.output_hash[:80]!r} is not 64 hex digits")


def _stable(found: _Signed) -> bytes | None:
    if found.kind == "scores":
        return stable_scores(found.scores or {})
    if found.kind == "ranking":
        return stable_ranking(found.ranking or [])
    if found.kind == "anchor":
        anchor = _anchor_of(found)
        return stable_anchor(anchor.anchored, anchor.epoch, anchor.root, anchor.leaves, anchor.first, anchor.count)
    return stable_nodes(found.nodes or {}) if found.kind == "memory" else None


def _anchor(found: _Signed) -> Anchor | None:
    if found.kind != "anchor":
        return None
    anchor = _anchor_of(found)
    last = anchor.first + anchor.count
    if not 0 < len(anchor.leaves) <= LEAVES_MOST or not 0 <= anchor.first < last <= len(anchor.leaves):
        raise Refused("schema", f"leaves {anchor.first} to {last} are not of {len(anchor.leaves)}")
    try:
        root = root_of(anchor.leaves).hex()
    except ValueError as error:
        raise Refused("schema", f"leaves: {error}") from None
    if root != anchor.root:
        raise Refused("anchor_root", f"the root of the leaves is {root}, not {anchor.root[:64]}")
    return anchor


def _anchor_fields(found: _Signed) -> dict[str, object]:
    return {name: getattr(found, name) for name in Anchor.__struct_fields__}


def _anchor_of(found: _Signed) -> Anchor:
    """Return the fields of an anchor, none of which is missing."""
    return wire.convert(_anchor_fields(found), Anchor)


def _cosigners(found: _Signed, signer: PublicKey, digest: str) -> tuple[PublicKey, ...]:
    keys: list[PublicKey] = []
    if len(found.cosignatures) > COSIGNATURES_MOST:
        text = f"{len(found.cosignatures)} co-signatures; at most {COSIGNATURES_MOST} are read"
        raise Refused("cosignature", text)
    for each in found.cosignatures:
        try:
            key, octets = ss58.decode(each.hotkey), bytes.fromhex(each.signature.removeprefix("0x"))
        except (MalformedHotkey, ValueError):
            raise Refused("cosignature", f"{each.hotkey[:60]!r} or its signature cannot be read") from None
        if not verify(key, digest.encode("ascii"), octets, allow_wrapped=False):
            raise Refused("cosignature", f"the signature is not that of {each.hotkey[:60]} over this payload")
        if key == signer or key in keys:
            raise Refused("cosignature", f"{ss58.encode(key)} has signed twice: two spellings of a key are one key")
        keys.append(key)
    return tuple(keys)


def require_roots(submission: Submission) -> None:
    """Check the root that each node signed; two verifications a node. Raises Refused."""
    for name, node in submission.nodes.items():
        if isinstance(node.root, SignedRoot):
            try:
                require_root(ss58.decode(name), node.root, submission.round_ts)
            except (MalformedHotkey, RootRefused) as refused:
                raise Refused("root", f"the root of node {name[:60]} does not hold: {refused}") from None


def judge(submission: Submission, known: Known) -> None:
    """Return when the payload is to be accepted. Raises Refused.

    A nonce that came with the same payload before is answered before this is called.
    """
    if submission.netuid not in known.netuids:
        raise Refused("subnet", f"subnet {submission.netuid} is not served here, only {sorted(known.netuids)}")
    if known.same_nonce is not None and known.same_nonce != submission.signed_hash:
        raise Refused("nonce_used", f"nonce {submission.nonce} came with another payload before")
    if known.signed_before is not None and known.signed_before != submission.output_hash:
        raise Refused("equivocation", f"another output of block {submission.block} was signed by one of its signers")
    if submission.kind == "gap" and known.gaps >= GAPS_MOST:
        raise Refused("gaps", f"{known.gaps} gap markers of block {submission.block} were accepted from this signer")
    if submission.kind == "memory" or (submission.kind in ("gap", "anchor") and submission.signer in known.gateways):
        if submission.signer not in known.gateways:
            address = ss58.encode(submission.signer)
            raise Refused("unknown_gateway", f"{address} is none of this receiver's xeris.gateways")
        if known.finalized is not None and submission.block > known.finalized:
            text = f"block {submission.block} is above the finalized head {known.finalized}: send it later"
            raise Refused("not_final", text)
        return
    if submission.kind == "anchor":
        return  # whoever has committed its root was registered, and may have lost the permit since its outputs
    if known.permits is None:
        raise Refused(
            "permits_unknown", f"who held a permit at block {submission.block} is not known yet: send it later"
        )
    without = [ss58.encode(key) for key in sorted(submission.keys) if key not in known.permits]
    if without:
        raise Refused("no_permit", f"no validator permit at block {submission.block}: {', '.join(without)}")
    if submission.kind in OF_VALIDATORS and len(submission.keys) < known.quorum:
        raise Refused("quorum", f"{len(submission.keys)} of at least {known.quorum} validators have signed")
