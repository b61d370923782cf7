"""What a node keeps for others beside records: key shares, attestations, conversations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from engram.durable.driver import sqlite3
from engram.hotkeys import PublicKey, ss58
from engram.memory import rules
from engram.memory.errors import InvalidInput, InvalidRequest, NotFound
from engram.memory.store import attestations, conversations, key_shares
from engram.memory.store.attestations import Attestation
from engram.miner.answers import Answer, Asked, from_parameters, plain, string, told, told_openly
from engram.miner.auth import Caller, Space, parse, private_name
from engram.miner.errors import Refused
from engram.miner.service import Service

_SHARE_COST_BYTES = 16_384
_CHAT_COST_BYTES = 4_096
_ATTESTATION_COST_BYTES = 4_096

T = TypeVar("T")


async def put_key_share(service: Service, body: bytes) -> Answer:
    """POST /KeyShareSynapse: keeps a share of a namespace's key for whoever signs for the namespace, on any node."""

    async def act(asked: Asked) -> Answer:
        caller = await service.gate.admit(body, "KeyShareSynapse")
        space = await _own(service, asked, caller)
        share = key_shares.check_share(caller.fields)
        replace = caller.fields.get("replace", False)
        if not isinstance(replace, bool):
            raise InvalidRequest("replace must be true or false.")
        if replace and not space.bound:
            raise Refused(401, "missing_signature", "Replacing a share must be signed for this very request.")
        service.storage.admit(_SHARE_COST_BYTES, caller.signer or space.owner)
        keep = key_shares.replace if replace else key_shares.put
        owner, now = _owner(space), service.clock.now()
        room = key_shares.room_for(owner, service.gate.controller.hex())
        await service.notebook.write(lambda connection: keep(connection, owner, space.name, share, now, room))
        return Answer(200, {"stored": True})

    return await told(service.disguise, act, plain)


async def get_key_share(service: Service, body: bytes) -> Answer:
    """POST /KeyShareRetrieve: gives the share back to whoever signs for the namespace."""

    async def act(asked: Asked) -> Answer:
        caller = await service.gate.admit(body, "KeyShareRetrieve")
        space = await _own(service, asked, caller)
        share = await service.notebook.read(lambda connection: key_shares.get(connection, _owner(space), space.name))
        if share is None:
            raise NotFound("not found: no share of this namespace is kept here for this key")
        return Answer(200, msgspec.structs.asdict(share))

    return await told(service.disguise, act, plain)


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


async def chat_history(service: Service, user_id: str, parameters: Mapping[str, str]) -> Answer:
    """GET /chat-history/{user_id}?conv_id=: signed as `chat-history` over the parameters and `user_id`."""

    async def act() -> Answer:
        caller = await service.gate.admit_reading(from_parameters(parameters, user_id=user_id), "chat-history")
        owner = service.gate.require_tenant(caller)
        user = conversations.check_id(caller.fields, "user_id")
        conv_id = conversations.check_id({"conv_id": caller.fields.get("conv_id") or "default"}, "conv_id")
        messages = await _read(service, lambda connection: conversations.history(connection, owner, user, conv_id))
        return Answer(200, {"user_id": user, "conv_id": conv_id, "messages": messages})

    return await told_openly(act, plain)


async def save_chat(service: Service, body: bytes) -> Answer:
    """POST /chat-history, signed as `SaveChat`: keeps the last 200 messages in the place of those kept before."""

    async def act() -> Answer:
        caller, owner, user = await _chatting(service, body, "SaveChat")
        conv_id = conversations.check_id({"conv_id": caller.fields.get("conv_id") or "default"}, "conv_id")
        messages = conversations.check_messages(caller.fields)
        service.storage.admit(_CHAT_COST_BYTES + 2 * len(body), owner)
        now = service.clock.now()
        await service.notebook.write(lambda c: conversations.save(c, owner, user, conv_id, messages, now))
        return Answer(200, {"ok": True, "user_id": user, "conv_id": conv_id, "count": len(messages)})

    return await told_openly(act, plain)


async def list_conversations(service: Service, user_id: str, parameters: Mapping[str, str]) -> Answer:
    """GET /conversations/{user_id}: signed as `conversations` over the parameters and `user_id`."""

    async def act() -> Answer:
        caller = await service.gate.admit_reading(from_parameters(parameters, user_id=user_id), "conversations")
        owner = service.gate.require_tenant(caller)
        user = conversations.check_id(caller.fields, "user_id")
        held = await _read(service, lambda connection: conversations.conversations(connection, owner, user))
        return Answer(200, {"user_id": user, "conversations": held})

    return await told_openly(act, plain)


async def make_conversation(service: Service, body: bytes) -> Answer:
    """POST /conversations, signed as `MakeConversation`: `user_id`, `conv_id`, `title`; one that is there stays."""

    async def act() -> Answer:
        caller, owner, user = await _chatting(service, body, "MakeConversation")
        conv_id, title = conversations.check_id(caller.fields, "conv_id"), conversations.check_title(caller.fields)
        service.storage.admit(_CHAT_COST_BYTES, owner)
        now = service.clock.now()
        made = await service.notebook.write(lambda c: conversations.make(c, owner, user, conv_id, title, now))
        return Answer(200, {"ok": True, **msgspec.structs.asdict(made)})

    return await told_openly(act, plain)


async def rename_conversation(service: Service, conv_id: str, body: bytes) -> Answer:
    """PATCH /conversations/{conv_id}, signed as `RenameConversation`: `user_id`, `title`, and the `conv_id` too."""

    async def act() -> Answer:
        caller, owner, user = await _chatting(service, body, "RenameConversation", conv_id)
        title, now = conversations.check_title(caller.fields), service.clock.now()
        await service.notebook.write(lambda c: conversations.rename(c, owner, user, conv_id, title, now))
        return Answer(200, {"ok": True, "conv_id": conv_id, "title": title})

    return await told_openly(act, plain)


async def delete_conversation(service: Service, conv_id: str, body: bytes) -> Answer:
    """DELETE /conversations/{conv_id}, signed as `DeleteConversation`: `user_id`, and the `conv_id` too."""

    async def act() -> Answer:
        _, owner, user = await _chatting(service, body, "DeleteConversation", conv_id)
        await service.notebook.write(lambda c: conversations.delete(c, owner, user, conv_id))
        await service.notebook.empty_log()
        return Answer(200, {"deleted": True, "conv_id": conv_id})

    return await told_openly(act, plain)


async def _own(service: Service, asked: Asked, caller: Caller) -> Space:
    """The namespace that the caller shows a right to; shares may be kept for namespaces of other nodes."""
    if private_name(caller.fields) is None:
        raise InvalidRequest("A key share belongs to a private namespace: name it in namespace.")
    asked.is_private = True
    return await service.gate.claimed(caller)


def _owner(space: Space) -> str:
    return space.owner.hex() if space.owner is not None else space.key


async def _chatting(
    service: Service, body: bytes, endpoint: str, conv_id: str | None = None
) -> tuple[Caller, PublicKey, str]:
    caller = await service.gate.admit(body, endpoint)
    owner = service.gate.require_tenant(caller)
    if conv_id is not None and caller.fields.get("conv_id") != conv_id:
        raise Refused(401, "conv_id_not_signed", "The signed body must name the conv_id of the path.")
    return caller, owner, conversations.check_id(caller.fields, "user_id")


async def _read(service: Service, query: Callable[[sqlite3.Connection], T]) -> T:
    return await service.notebook.read(query)
