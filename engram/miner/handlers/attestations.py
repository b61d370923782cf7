"""Attesting a namespace with the stake of a hotkey."""

from __future__ import annotations

from engram.api.call import Call
from engram.api.node_model import Attest, Attestation, Attested
from engram.api.route import NoBody
from engram.hotkeys import ss58
from engram.memory import rules
from engram.memory.errors import InvalidInput, InvalidRequest
from engram.memory.store import attestations
from engram.miner.auth import Caller, parse
from engram.miner.fields import string
from engram.miner.service import Service

_ATTESTATION_COST_BYTES = 4_096


async def attest(service: Service, call: Call[Attest, Caller]) -> Attested:
    """POST /AttestNamespace: the signing hotkey attests the namespace with its stake; no other may from then on."""
    fields = parse(call.http.body, call.route.signed_as).fields
    name = string(fields, "namespace")
    owner = service.gate.attester(fields)
    try:
        rules.check_namespace(name)
    except InvalidInput as error:
        raise InvalidRequest(str(error)) from error
    service.storage.admit(_ATTESTATION_COST_BYTES, owner)
    room = attestations.room_for(owner, service.gate.controller)
    await service.attestations.put(attestations.Attestation(name, owner, service.clock.now()), room)
    stake = service.subnet.stake_tao(owner)
    return Attested(ok=True, namespace=name, trust_tier=attestations.tier(stake), stake_tao=stake or 0.0)


async def attestation(service: Service, call: Call[NoBody, Caller]) -> Attestation:
    """GET /attestation/{namespace}: the hotkey that attested it, and its stake now."""
    name = call.path("namespace")
    held = service.attestations.get(name)
    if held is None:
        return Attestation(namespace=name, trust_tier=attestations.ANONYMOUS, attested=False)
    stake = service.subnet.stake_tao(held.owner)
    return Attestation(
        namespace=name,
        owner_hotkey=ss58.encode(held.owner),
        trust_tier=attestations.tier(stake),
        stake_tao=stake or 0.0,
        attested_at=held.attested_at,
        attested=True,
    )
