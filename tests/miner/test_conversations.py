"""Conversations: only for the key that signs."""

from pathlib import Path
from typing import Any

import pytest

from engram.clock import ManualClock
from engram.hotkeys import miner_scheme
from tests.miner import endpoints
from tests.miner.endpoints import chat_parameters, opened
from tests.miner.nodes import CONTROLLER, STRANGER, encoded, serving, signed


async def test_conversations_are_for_whoever_signed_them(tmp_path: Path) -> None:
    said = [{"role": "user", "content": f"{i}", "ts": i} for i in range(250)]
    async with serving(tmp_path, tenants="anyone") as service:
        body = signed(STRANGER, "SaveChat", {"user_id": "u", "conv_id": "c", "messages": said})
        assert opened(await endpoints.save_chat(service, body))["count"] == 200
        make = signed(STRANGER, "MakeConversation", {"user_id": "u", "conv_id": "d", "title": "D"})
        assert opened(await endpoints.make_conversation(service, make))["title"] == "D"
        parameters = chat_parameters(STRANGER, "chat-history", user_id="u", conv_id="c")
        told = opened(await endpoints.chat_history(service, "u", parameters))
        messages: Any = told["messages"]
        assert [message["content"] for message in messages] == [str(i) for i in range(50, 250)]
        assert (await endpoints.chat_history(service, "other", parameters)).status == 401
        assert (await endpoints.chat_history(service, "u", {"conv_id": "c"})).status == 401
        others = chat_parameters(CONTROLLER, "chat-history", user_id="u", conv_id="c")
        assert opened(await endpoints.chat_history(service, "u", others))["messages"] == []
        listed: Any = opened(
            await endpoints.list_conversations(service, "u", chat_parameters(STRANGER, "conversations", user_id="u"))
        )["conversations"]
        assert {each["conv_id"] for each in listed} == {"c", "d"}
        renamed = signed(STRANGER, "RenameConversation", {"user_id": "u", "conv_id": "d", "title": "E"})
        assert (await endpoints.rename_conversation(service, "c", renamed)).status == 401
        renamed = signed(STRANGER, "RenameConversation", {"user_id": "u", "conv_id": "d", "title": "F"})
        assert opened(await endpoints.rename_conversation(service, "d", renamed))["title"] == "F"
        foreign = signed(CONTROLLER, "DeleteConversation", {"user_id": "u", "conv_id": "d"})
        assert (await endpoints.delete_conversation(service, "d", foreign)).status == 404
        forget = signed(STRANGER, "DeleteConversation", {"user_id": "u", "conv_id": "d"})
        assert opened(await endpoints.delete_conversation(service, "d", forget))["deleted"] is True
        again = signed(STRANGER, "RenameConversation", {"user_id": "u", "conv_id": "d", "title": "x"})
        assert (await endpoints.rename_conversation(service, "d", again)).status == 404


@pytest.mark.parametrize(
    "fields",
    [
        {"user_id": ""},
        {"user_id": 5, "messages": []},
        {"user_id": "\ud800", "messages": []},
        {"user_id": "u", "messages": {}},
        {"user_id": "u", "messages": [5]},
        {"user_id": "u", "messages": [{"role": "", "content": "x"}]},
        {"user_id": "u", "messages": [{"role": "user", "content": None}]},
        {"user_id": "u", "messages": [{"role": "user", "content": "x" * 40_000}]},
        {"user_id": "u", "messages": [{"role": "user", "content": "x", "ts": True}]},
        {"user_id": "u", "messages": [{"role": "user", "content": "x", "ts": "\ud800"}]},
        {"user_id": "u", "messages": [{"role": "user", "content": "x", "ts": 2**64}]},
        {"user_id": "u", "conv_id": ["c"], "messages": []},
        {"user_id": "u" * 200, "messages": []},
    ],
)
async def test_a_bad_conversation_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    async with serving(tmp_path) as service:
        answer = await endpoints.save_chat(service, signed(CONTROLLER, "SaveChat", fields))
        assert (answer.status, answer.body["code"]) == (400, "malformed")
        if isinstance(fields["user_id"], str) and fields["user_id"] == "u":
            titled = signed(CONTROLLER, "MakeConversation", {**fields, "conv_id": "c", "title": 5})
            assert (await endpoints.make_conversation(service, titled)).status == 400


async def test_a_message_is_stamped_when_it_is_saved_first(tmp_path: Path) -> None:
    clock = ManualClock()
    async with serving(tmp_path, clock=clock) as service:

        async def kept(*said: dict[str, Any]) -> list[Any]:
            stamp = int(clock.now() * 1000)
            chat = {"user_id": "u", "conv_id": "c", "messages": list(said)}
            assert (await endpoints.save_chat(service, signed(CONTROLLER, "SaveChat", chat, stamp))).status == 200
            fields = miner_scheme.sign_body(CONTROLLER, "chat-history", {"user_id": "u", "conv_id": "c"}, stamp)
            asked = {name: str(value) for name, value in fields.items() if name != "user_id"}
            held: Any = (await endpoints.chat_history(service, "u", asked)).body["messages"]
            return [message["ts"] for message in held]

        hi, bye = {"role": "user", "content": "hi"}, {"role": "user", "content": "bye", "ts": None}
        first_s = clock.now()
        assert await kept(hi) == [first_s]
        clock.advance(10.0)
        assert await kept(hi, {"role": "user", "content": "so", "ts": "noon"}, bye, hi) == [
            *(first_s, "noon"),
            *(first_s + 10.0, first_s + 10.0),
        ]


async def test_a_stranger_keeps_no_conversation_on_a_node_of_one_controller(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        body = signed(STRANGER, "SaveChat", {"user_id": "u", "messages": []})
        assert (await endpoints.save_chat(service, body)).status == 403
        assert (await endpoints.save_chat(service, encoded({"user_id": "u", "messages": []}))).status == 401
