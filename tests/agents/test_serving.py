"""The memory of a node over HTTP: the command, tokens with their namespaces, and what a stranger's token gets."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from engram.cli import main
from engram.hotkeys import Keypair, wallet
from engram.http.client import HttpClient
from engram.mcp import tokens
from tests.mcp.toys import call, request
from tests.miner.nodes import CONTROLLER, STRANGER, node

pytestmark = pytest.mark.serial

ENGRAM = str(Path(sys.executable).with_name("engram"))


def token(folder: Path, capsys: pytest.CaptureFixture[str], url: str, keypair: Keypair, *arguments: str) -> str:
    """A token that `engram mcp token` made."""
    key = folder / keypair.ss58
    if not key.exists():
        wallet.write_hotkey_file(key, keypair)
    assert main(["mcp", "token", url, "--key", str(key), *arguments]) == 0
    return capsys.readouterr().out.strip()


async def test_a_memory_over_http_opens_what_a_token_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = tmp_path / "key"
    wallet.write_hotkey_file(key, CONTROLLER)
    (tmp_path / "node").mkdir()
    with node(tmp_path / "node") as made:
        command = [ENGRAM, "miner", "mcp", "--to", f"http://127.0.0.1:{made.port}", "--key", str(key)]
        command += ["--namespace", "notes", "--namespace", "work", "--embedder", "hash", "--listen", "127.0.0.1:0"]
        command += ["--revoked", str(tmp_path / "revoked.json"), "--host", "memory.example"]
        async with served(*command) as url:
            await use(url, tmp_path, capsys)
        async with served(*command, "--open-loopback") as url:
            assert (await ask(url, request("tools/list")))[0] == 200, "programs on this machine need no token"
            behind_a_proxy = await ask(url, request("tools/list"), **{"x-forwarded-host": "memory.example"})
            assert behind_a_proxy[0] == 401


@asynccontextmanager
async def served(*command: str, stdout: int | None = None) -> AsyncIterator[str]:
    """The command's URL; all that it writes of its own accord is that."""
    process = await trio.lowlevel.open_process(command, stdout=stdout, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        said = b""
        with trio.fail_after(30):
            while b"/mcp\n" not in said:
                part = await process.stderr.receive_some()
                assert part, said
                said += part
        yield said.decode().split()[-1]
    finally:
        process.terminate()
        with trio.fail_after(20):
            assert await process.wait() == 0
            assert process.stderr is not None
            assert await process.stderr.receive_some() == b""


async def test_an_agent_in_a_hurry_is_served_and_nothing_is_written_of_its_requests(tmp_path: Path) -> None:
    """A line of each request would hide what matters, and on standard output of the unconfigured log it had secrets."""
    key = tmp_path / "key"
    wallet.write_hotkey_file(key, CONTROLLER)
    command = [ENGRAM, "miner", "mcp", "--to", "http://127.0.0.1:1", "--key", str(key), "--namespace", "notes"]
    command += ["--listen", "127.0.0.1:0", "--open-loopback", "--revoked", str(tmp_path / "revoked.json")]
    output = tmp_path / "output"
    with output.open("wb") as written:
        async with served(*command, stdout=written.fileno()) as url:
            http = HttpClient()
            sent = {"content-type": "application/json"}
            asked = [(await http.request("POST", url, content=request("ping"), headers=sent)) for _ in range(300)]
            await http.aclose()
    assert {found.status for found in asked} == {200}
    assert output.read_bytes() == b""


async def ask(url: str, body: bytes, bearer: str = "", **headers: str) -> tuple[int, Any]:
    http = HttpClient()
    sent = {"content-type": "application/json", **headers} | ({"authorization": f"Bearer {bearer}"} if bearer else {})
    found = await http.request("POST", url, content=body, headers=sent)
    await http.aclose()
    return found.status, msgspec.json.decode(found.content)


async def use(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = request("tools/list")
    status, refused = await ask(url, line)
    assert (status, refused["code"]) == (401, "token_missing"), "a proxy on this machine looks like this too"
    writer = token(tmp_path, capsys, url, CONTROLLER, "--scope", "read", "--scope", "write", "--days", "1")
    _, stored = await ask(url, call("remember", {"text": "Otters hold hands."}), writer)
    named = token(tmp_path, capsys, "http://memory.example/mcp", CONTROLLER)
    assert (await ask(url, line, named, host="memory.example"))[0] == 200
    status, refused = await ask(url, line, named, host="other.example")
    assert (status, "--host" in refused["error"]) == (421, True)
    reader = token(tmp_path, capsys, url, CONTROLLER, "--namespace", "work")
    _, listed = await ask(url, request("tools/list"), reader)
    assert [tool["name"] for tool in listed["result"]["tools"]] == ["recall", "list"]
    _, refused = await ask(url, call("list", {"namespace": "notes"}), reader)
    assert "is not open here: use work" in refused["result"]["content"][0]["text"]
    assert (await ask(url, call("remember", {"text": "x"}), reader))[0] == 403
    stranger = token(tmp_path, capsys, url, STRANGER, "--scope", "write")
    assert (await ask(url, request("tools/list"), stranger))[0] == 403

    _, gone = await ask(url, call("forget", {"id": stored["result"]["structuredContent"]["id"]}), writer)
    assert gone["result"]["structuredContent"] == {"forgotten": True}
    kept = tmp_path / "token.txt"
    kept.write_text(writer + "\n", encoding="utf-8")
    revoke = ["mcp", "revoke", url, "--token", str(kept), "--key"]
    assert await trio.to_thread.run_sync(main, [*revoke, str(tmp_path / STRANGER.ss58)]) == 1
    assert "was signed by" in capsys.readouterr().err
    assert await trio.to_thread.run_sync(main, [*revoke, str(tmp_path / CONTROLLER.ss58)]) == 0
    assert (await ask(url, request("tools/list"), writer))[0] == 401


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["token", "https://agents.example/mcp", "--days", "91"], "--days is 1 to 90"),
        (["token", "agents.example"], "the server's URL is http"),
        (["connect", "agents.example/mcp"], "the server's URL is http"),
        (["revoke", "https://agents.example/mcp", "--token", "none"], "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_command_is_said(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "key"
    wallet.write_hotkey_file(key, CONTROLLER)
    assert main(["mcp", *arguments, "--key", str(key)]) in (1, 2)
    assert words in capsys.readouterr().err


def test_a_token_is_shown_with_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = msgspec.json.decode(token(tmp_path, capsys, "https://agents.example/mcp", CONTROLLER, "--json"))
    claims = tokens.claims_of(shown["token"])
    assert (claims.id, claims.exp, claims.aud) == (shown["id"], shown["expires_at"], "agents.example")
