"""Attesting a namespace with the stake of a hotkey."""

from __future__ import annotations

from engram.hotkeys import ss58
from engram.memory import rules
from engram.memory.errors import InvalidInput, InvalidRequest
from engram.memory.store import attestations
from engram.memory.store.attestations import Attestation
from engram.miner.answers import Answer, plain, string, told_openly
from engram.miner.auth import parse
from engram.miner.service import Service

_ATTESTATION_COST_BYTES = 4_096


async def attest(service: Service, body: bytes) -> Answer:
    """POST /AttestNamespace: whoever signs stands for the namespace with their stake; nobody else from then on."""

    async def act() -> Answer:
        fields = parse(body, "AttestNamespace").fields
        name = string(fields, "namespace")
        owner = service.gate.attester(fields)
        try:
            rules.check_namespace(name)
        except InvalidInput as error:
            raise InvalidRequest(str(error)) from error
        service.storage.admit(_ATTESTATION_COST_BYTES, owner)
        room = attestations.room_for(owner, service.gate.controller)
        await service.attestations.put(Attestation(name, owner, service.clock.now()), room)
        stake = service.subnet.stake_tao(owner)
        return Answer(
            200, {"ok": True, "namespace": name, "trust_tier": attestations.tier(stake), "stake_tao": stake or 0.0}
        )

    return await told_openly(act, plain)


async def attestation(service: Service, name: str) -> Answer:
    """GET /attestation/{namespace}: who stands for it, and with what stake now."""
    held = service.attestations.get(name)
    if held is None:
        return Answer(200, {"namespace": name, "trust_tier": attestations.ANONYMOUS, "attested": False})
    stake = service.subnet.stake_tao(held.owner)
    return Answer(
        200,
        {
            "namespace": name,
            "owner_hotkey": ss58.encode(held.owner),
            "trust_tier": attestations.tier(stake),
            "stake_tao": stake or 0.0,
            "attested_at": held.attested_at,
            "attested": True,
        },
    )
