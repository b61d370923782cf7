"""Conversations, each for the key that signs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from engram.hotkeys import PublicKey
from engram.memory.store import conversations
from engram.miner.answers import Answer, from_parameters, plain, told_openly
from engram.miner.auth import Caller
from engram.miner.errors import Refused
from engram.miner.service import Service

_CHAT_COST_BYTES = 4_096

T = TypeVar("T")


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
