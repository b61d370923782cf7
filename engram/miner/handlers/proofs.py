"""Proofs that a record is stored, or is or is not in the commitment, and the commitment itself."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET

from engram.api.call import Call
from engram.api.node_model import Challenge, Commitment, Prove, Proved, Root, StorageProof
from engram.api.route import NoBody
from engram.hotkeys.certificates import HEADER as CERTIFICATES_HEADER
from engram.hotkeys.python_json import JsonValue
from engram.memory import cid as cids
from engram.memory.errors import InvalidRequest, NotFound, TruthUnavailable
from engram.memory.model import PUBLIC, Record
from engram.memory.proof import merkle, proofs
from engram.memory.proof.keyed_tree import KeyedTree
from engram.memory.proof.statements import WHOLE, PossessionStatement, RootStatement
from engram.miner import authority
from engram.miner.auth import EVERYBODYS, Caller, Space
from engram.miner.errors import Refused
from engram.miner.fields import hex32, string
from engram.miner.handlers.query import found_record
from engram.miner.service import Service

_LONGEST_CHALLENGE_S = 600
FORM: Final = "keyed-1"
LEGACY: Final = "legacy"


async def challenge(service: Service, call: Call[Challenge, Caller]) -> StorageProof:
    """POST /ChallengeSynapse: prove that the node has the hash of a vector, in the form existing validators check; with
    `"version": 2`, that it can read the vector's bytes now."""
    caller, space = await service.enter(call)
    fields = caller.fields
    version = fields.get("version", 1)
    if type(version) is not int or version not in (1, 2):
        raise InvalidRequest("version must be 1 or 2.")
    nonce = hex32(fields, "nonce_hex")
    validator = hex32(fields, "validator_hotkey_hex") if fields.get("validator_hotkey_hex") else bytes(32)
    expires_at = _expiry(service, fields)
    record = await _challenged(service, space, string(fields, "cid"))
    if version == 1:
        proof = proofs.storage_proof(record.embedding, nonce, validator)
        answer = StorageProof(embedding_hash=proofs.embedding_hash(record.embedding), proof=proof)
    else:
        if expires_at != int(expires_at) or expires_at > service.clock.now() + _LONGEST_CHALLENGE_S:
            raise InvalidRequest(f"expires_at must be whole, at most {_LONGEST_CHALLENGE_S} s ahead.")
        answer = await _possession(
            service, space, record, nonce, validator, int(expires_at), takes_certificate=takes(call)
        )
    if not space.is_private:
        service.statistics.proof_given()
    service.metrics.challenges.labels("proved").inc()
    return answer


async def commitment(service: Service, call: Call[NoBody, Caller]) -> Root:
    """GET /commitment: the root over all public records as they are now, signed by the node.

    `form=legacy` gives the original's root. A private namespace's fields as parameters give its own root, to its
    owner; `scope=all` the root over everything, to the controller.
    """
    caller, space = await service.enter(call)
    form = _form(caller.fields)
    scope = caller.fields.get("scope")
    if scope not in (None, "", "all"):
        raise InvalidRequest("scope must be all, or be left out.")
    if scope == "all" and space.is_private:
        raise authority.refused("scope", "scope all covers every namespace: leave out scope or namespace.")
    if scope == "all":
        service.gate.require_controller(caller)
        return _as_answer(await signed_whole(service, takes_certificate=takes(call)))
    await service.soundness.require_all(space.key)
    if form == LEGACY:
        legacy = await _legacy(service, space)
        return _as_answer(
            await _signed(service, space.name, legacy.root, len(legacy), LEGACY, takes_certificate=takes(call))
        )
    tree = await service.commitment.of(space.key)
    return _as_answer(await signed_root(service, space, tree, takes_certificate=takes(call)))


async def prove_memory(service: Service, call: Call[Prove, Caller]) -> Proved:
    """POST /prove-memory: prove that a CID is under the root that /commitment returns, or that it is not.

    `"form": "legacy"` returns the original's proof, which shows presence only.
    """
    caller, space = await service.enter(call)
    cid = string(caller.fields, "cid")
    if not cids.is_cid(cid):
        raise NotFound("not found: that is no CID")
    await service.soundness.require_all(space.key)
    if _form(caller.fields) == LEGACY:
        claimed_hash = string(caller.fields, "embedding_hash")
        return await _prove_legacy(service, space, cid, claimed_hash, takes_certificate=takes(call))
    with contextlib.suppress(NotFound):  # then the proof shows its absence
        await found_record(service, space.key, cid)
    tree = await service.commitment.of(space.key)
    shown = tree.show(cid)
    claimed = caller.fields.get("embedding_hash")
    if shown.embedding_hash is not None and claimed not in (None, "", shown.embedding_hash):
        raise NotFound("not found: the CID is there with another vector")
    signed = await _signed(service, space.name, tree.root, len(tree), FORM, takes_certificate=takes(call))
    proof = msgspec.json.encode(shown).decode()
    included = shown.embedding_hash is not None
    return Proved(**msgspec.structs.asdict(signed), cid=cid, included=included, proof=proof)


def takes(call: Call[Any, Caller]) -> bool:
    """Return whether the client checks certificates, which it says by the header X-Engram-Certificate."""
    return call.header(CERTIFICATES_HEADER) is not None


async def signed_whole(service: Service, *, takes_certificate: bool) -> Commitment:
    """Return the signed root over everything the node holds; for its controller.

    Raises RecordDamaged, TruthUnavailable.
    """
    await service.soundness.require_all()
    root, count = await service.commitment.whole()
    return await _signed(service, WHOLE, root, count, FORM, takes_certificate=takes_certificate)


async def signed_root(service: Service, space: Space, tree: KeyedTree, *, takes_certificate: bool) -> Commitment:
    """Return the signed root of a namespace, as /commitment does."""
    return await _signed(service, space.name, tree.root, len(tree), FORM, takes_certificate=takes_certificate)


def _as_answer(root: Commitment) -> Root:
    return Root(**msgspec.structs.asdict(root))


async def _possession(
    service: Service,
    space: Space,
    record: Record,
    nonce: bytes,
    validator: bytes,
    expires_at: int,
    *,
    takes_certificate: bool,
) -> StorageProof:
    await service.soundness.require_all(space.key)
    tree: KeyedTree = await service.commitment.of(space.key)
    signer = service.identity.signer
    challenge = proofs.Challenge(
        signer.hotkey, validator, nonce, record.cid, space.name, tree.root, len(tree), expires_at
    )
    proof = proofs.possession_proof(record.embedding, challenge)
    statement = PossessionStatement(
        validator_hex=validator.hex(),
        nonce_hex=nonce.hex(),
        cid=record.cid,
        namespace=space.name,
        root_hex=tree.root.hex(),
        count=len(tree),
        expires_at=expires_at,
        proof_hex=proof,
    )
    signed = await service.countersigner.signed(statement, takes_certificate=takes_certificate)
    return StorageProof(
        version=2,
        cid=record.cid,
        namespace=space.name,
        proof=proof,
        root_hex=tree.root.hex(),
        count=len(tree),
        expires_at=expires_at,
        miner=signer.address,
        signature=signed.text,
        certificate=signed.certificate or UNSET,
        inclusion=tree.show(record.cid),
    )


async def _challenged(service: Service, space: Space, cid: str) -> Record:
    try:
        return await found_record(service, space.key, cid)
    except TruthUnavailable:
        if not space.is_private:
            service.statistics.proof_failed()
        service.metrics.challenges.labels("failed").inc()
        raise


async def _legacy(service: Service, space: Space) -> merkle.Tree:
    if space.key != PUBLIC:
        raise InvalidRequest("A private namespace has no commitment of the legacy form.")
    return await service.commitment.tree()


async def _prove_legacy(
    service: Service, space: Space, cid: str, embedding_hash: str, *, takes_certificate: bool
) -> Proved:
    tree = await _legacy(service, space)
    proof = tree.prove(merkle.leaf(cid, embedding_hash))
    if proof is None:
        raise NotFound
    encoded = msgspec.json.encode(proof).decode()
    signed = await _signed(service, EVERYBODYS.name, tree.root, len(tree), LEGACY, takes_certificate=takes_certificate)
    return Proved(**msgspec.structs.asdict(signed), cid=cid, proof=encoded)


async def _signed(
    service: Service, name: str, root: bytes, count: int, form: Literal["keyed-1", "legacy"], *, takes_certificate: bool
) -> Commitment:
    """Return root and count with the time and the node's signature over
    `engram-commitment:{form}:{namespace}:{root}:{count}:{unix ms}`."""
    built_at = service.clock.now()
    signer = service.identity.signer
    statement = RootStatement(form=form, namespace=name, root_hex=root.hex(), count=count, at_ms=int(built_at * 1000))
    signed = await service.countersigner.signed(statement, takes_certificate=takes_certificate)
    return Commitment(
        root_hex=root.hex(),
        count=count,
        built_at=built_at,
        hotkey=signer.address,
        form=form,
        signed=statement.message(signer.hotkey).decode(),
        signature=signed.text,
        certificate=signed.certificate or UNSET,
    )


def _form(fields: Mapping[str, JsonValue]) -> Literal["keyed-1", "legacy"]:
    match fields.get("form"):
        case None | "" | "keyed-1":
            return FORM
        case "legacy":
            return LEGACY
        case _:
            raise InvalidRequest(f"form must be {FORM} or {LEGACY}.")


def _expiry(service: Service, fields: Mapping[str, JsonValue]) -> float:
    expires_at = fields.get("expires_at")
    if isinstance(expires_at, bool) or not isinstance(expires_at, int | float):
        raise InvalidRequest("expires_at must be unix seconds.")
    if expires_at < service.clock.now():
        raise Refused(400, "expired", "The challenge has expired.")
    return expires_at
