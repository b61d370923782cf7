"""Conversations; each key sees only its own."""

from __future__ import annotations

from typing import Any

import msgspec

from engram.api.call import Call
from engram.api.node_model import (
    ChatHistory,
    Conversation,
    Conversations,
    DeleteConversation,
    DeletedConversation,
    MadeConversation,
    MakeConversation,
    RenameConversation,
    RenamedConversation,
    SaveChat,
    SavedChat,
    SavedMessage,
)
from engram.api.route import NoBody
from engram.hotkeys import PublicKey
from engram.memory.store import conversations
from engram.miner.auth import Caller
from engram.miner.errors import Refused
from engram.miner.service import Service

_CHAT_COST_BYTES = 4_096


async def chat_history(service: Service, call: Call[NoBody, Caller]) -> ChatHistory:
    """GET /chat-history/{user_id}?conv_id=: signed as `chat-history` over the parameters and `user_id`."""
    caller, owner, user = await _tenant(service, call)
    conv_id = _conversation_of(caller)
    held = await service.notebook.read(lambda c: conversations.history(c, owner, user, conv_id))
    messages = [SavedMessage(each.role, each.content, each.ts) for each in held]
    return ChatHistory(user_id=user, conv_id=conv_id, messages=messages)


async def save_chat(service: Service, call: Call[SaveChat, Caller]) -> SavedChat:
    """POST /chat-history, signed as `SaveChat`: replace the messages by the last 200 of these."""
    caller, owner, user = await _tenant(service, call)
    conv_id = _conversation_of(caller)
    messages = conversations.check_messages(caller.fields)
    service.storage.admit(_CHAT_COST_BYTES + 2 * len(call.http.body), owner)
    now = service.clock.now()
    await service.notebook.write(lambda c: conversations.save(c, owner, user, conv_id, messages, now))
    return SavedChat(ok=True, user_id=user, conv_id=conv_id, count=len(messages))


async def list_conversations(service: Service, call: Call[NoBody, Caller]) -> Conversations:
    """GET /conversations/{user_id}: signed as `conversations` over the parameters and `user_id`."""
    _, owner, user = await _tenant(service, call)
    held = await service.notebook.read(lambda c: conversations.conversations(c, owner, user))
    shown = [Conversation(**msgspec.structs.asdict(each)) for each in held]
    return Conversations(user_id=user, conversations=shown)


async def make_conversation(service: Service, call: Call[MakeConversation, Caller]) -> MadeConversation:
    """POST /conversations, signed as `MakeConversation`: `user_id`, `conv_id`, `title`; an existing one stays."""
    caller, owner, user = await _tenant(service, call)
    conv_id, title = conversations.check_id(caller.fields, "conv_id"), conversations.check_title(caller.fields)
    service.storage.admit(_CHAT_COST_BYTES, owner)
    now = service.clock.now()
    made = await service.notebook.write(lambda c: conversations.make(c, owner, user, conv_id, title, now))
    return MadeConversation(ok=True, **msgspec.structs.asdict(made))


async def rename_conversation(service: Service, call: Call[RenameConversation, Caller]) -> RenamedConversation:
    """PATCH /conversations/{conv_id}, signed as `RenameConversation`: `user_id`, `title`, and the `conv_id` too."""
    caller, owner, user = await _tenant(service, call)
    conv_id, title, now = call.path("conv_id"), conversations.check_title(caller.fields), service.clock.now()
    await service.notebook.write(lambda c: conversations.rename(c, owner, user, conv_id, title, now))
    return RenamedConversation(ok=True, conv_id=conv_id, title=title)


async def delete_conversation(service: Service, call: Call[DeleteConversation, Caller]) -> DeletedConversation:
    """DELETE /conversations/{conv_id}, signed as `DeleteConversation`: `user_id`, and the `conv_id` too."""
    _, owner, user = await _tenant(service, call)
    conv_id = call.path("conv_id")
    await service.notebook.write(lambda c: conversations.delete(c, owner, user, conv_id))
    await service.notebook.empty_log()
    return DeletedConversation(deleted=True, conv_id=conv_id)


async def _tenant(service: Service, call: Call[Any, Caller]) -> tuple[Caller, PublicKey, str]:
    """Return the caller, its key and the user that the request names. Raises Refused, InvalidRequest."""
    caller = await service.admit(call)
    owner = service.gate.require_tenant(caller)
    in_path = call.http.parameters.get("conv_id")
    if in_path is not None and caller.fields.get("conv_id") != in_path:
        raise Refused(401, "conv_id_not_signed", "The signed body must name the conv_id of the path.")
    return caller, owner, conversations.check_id(caller.fields, "user_id")


def _conversation_of(caller: Caller) -> str:
    return conversations.check_id({"conv_id": caller.fields.get("conv_id") or "default"}, "conv_id")
