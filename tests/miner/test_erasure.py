"""Whatever the API overwrites or deletes is in no file of the data folder a quiet second later."""

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engram.hotkeys import miner_scheme
from tests.miner.nodes import CONTROLLER, STAMPS, NodeProcess, encoded, node, signed

Step = tuple[str, str, str, dict[str, Any]]
"""Method, path, the name that is signed, and the body."""


def chat(text: str) -> Step:
    said = {"user_id": "u", "conv_id": "c", "messages": [{"role": "user", "content": text}]}
    return "POST", "/chat-history", "SaveChat", said


def titled(text: str) -> Step:
    return "POST", "/conversations", "MakeConversation", {"user_id": "u", "conv_id": "t", "title": text}


def renamed(text: str) -> Step:
    return "PATCH", "/conversations/t", "RenameConversation", {"user_id": "u", "conv_id": "t", "title": text}


def forgotten(_: str) -> Step:
    return "DELETE", "/conversations/c", "DeleteConversation", {"user_id": "u", "conv_id": "c"}


def share(text: str) -> Step:
    fields = {"share_index": 1, "share_hex": text.encode().hex(), "threshold": 2, "total": 3, "replace": True}
    return "POST", "/KeyShareSynapse", "KeyShareSynapse", {"namespace": "vault", **fields}


def record(text: str, **where: str) -> Step:
    return "POST", "/IngestSynapse", "IngestSynapse", {"text": text, "metadata": {"note": text}, **where}


def private(text: str) -> Step:
    return record(text, namespace="notes")


def taken_out(answer: dict[str, Any], **where: str) -> Step:
    return "DELETE", f"/retrieve/{answer['cid']}", "DeleteSynapse", {"cid": answer["cid"], **where}


def done(asked: NodeProcess, step: Step) -> dict[str, Any]:
    method, path, name, body = step
    sent = encoded(miner_scheme.sign_body(CONTROLLER, name, body, STAMPS.next()))
    status, answer = asked.ask(method, path, sent)
    assert status == 200, answer
    return answer


def found(folder: Path, text: str) -> list[str]:
    """Files with the text, plain or in hex."""
    forms = (text.encode(), text.encode().hex().encode())
    names = []
    for place, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(FileNotFoundError):  # files of the index come and go
                content = Path(place, name).read_bytes()
                names += [name] * any(form in content for form in forms)
    return names


def await_none(folder: Path, text: str) -> None:
    until_s = time.monotonic() + 15
    while where := found(folder, text):
        assert time.monotonic() < until_s, where
        time.sleep(0.05)


OVERWRITING: dict[str, tuple[Callable[[str], Step], Callable[[str], Step]]] = {
    "a chat by another": (chat, chat),
    "a title": (titled, renamed),
    "a conversation": (chat, forgotten),
    "a share": (share, share),
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with node(tmp_path_factory.mktemp("node")) as started:
        yield started


@pytest.mark.parametrize("kind", OVERWRITING)
def test_what_is_overwritten_is_gone(running: NodeProcess, kind: str) -> None:
    first, second = OVERWRITING[kind]
    old, new = f"the old content of {kind}", f"the new content of {kind}"
    done(running, first(old))
    assert found(running.folder / "data", old)
    done(running, second(new))
    await_none(running.folder / "data", old)


@pytest.mark.parametrize("where", [{}, {"namespace": "notes"}], ids=["public", "private"])
def test_a_deleted_record_is_gone(running: NodeProcess, where: dict[str, str]) -> None:
    old = f"the old content of a record in {where}"
    stored = done(running, record(old, **where))
    assert found(running.folder / "data", old)
    done(running, taken_out(stored, **where))
    await_none(running.folder / "data", old)


def test_an_erased_namespace_is_gone(running: NodeProcess) -> None:
    old = "the old content of a namespace"
    done(running, private(old))
    listener = json.loads((running.folder / "data" / "ops.json").read_bytes())
    operator = NodeProcess.__new__(NodeProcess)
    operator.port = listener["port"]
    status, _ = operator.ask("POST", "/namespace", encoded({"action": "delete", "namespace": "notes"}))
    assert status == 200
    await_none(running.folder / "data", old)


def test_what_was_overwritten_just_before_the_end_is_gone_after_it(tmp_path: Path) -> None:
    with node(tmp_path) as started:
        done(started, chat("what was said first"))
        done(started, chat("what is said now"))
        started.kill()
        started.start()
        await_none(tmp_path / "data", "what was said first")
        assert started.ask("POST", "/export", signed(CONTROLLER, "export", {"kind": "conversation"}))[0] == 200
