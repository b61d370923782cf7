"""Who may call over HTTP, and what tokens are taken."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from engram.clock import ManualClock
from engram.hotkeys import Keypair, ReplayStore
from engram.mcp import revocation, tokens
from engram.mcp.access import Access, Denied, Policy
from engram.mcp.model import Caller
from engram.mcp.revocation import RevocationFile, TooMany
from engram.mcp.tokens import Claims, TokenRefused

NOW = 1_900_000_000.0
OWNER, STRANGER = Keypair.from_seed(bytes([1]) * 32), Keypair.from_seed(bytes([2]) * 32)
HOST = "agents.example"


def claims(keypair: Keypair = OWNER, **changed: Any) -> Claims:
    fields: dict[str, Any] = {
        "key": keypair.ss58,
        "aud": HOST,
        "scope": ("read",),
        "iat": int(NOW),
        "exp": int(NOW) + 3_600,
        "id": "0" * 31 + "1",
    }
    return Claims(**(fields | changed))


def for_body(body: bytes, **changed: Any) -> str:
    own: dict[str, Any] = {"exp": int(NOW) + 60, "body": hashlib.sha256(body).hexdigest()} | changed
    return tokens.mint(OWNER, claims(**own))


def proxied(name: str) -> dict[str, Any]:
    return {name: "8.8.8.8"}


class Bench:
    def __init__(self, tmp_path: Path, policy: Policy | None = None, replays: ReplayStore | None = None) -> None:
        self.clock = ManualClock(NOW - 100)
        self.revocations = RevocationFile(tmp_path / "revoked.json")
        own = Policy(hosts={HOST}, permitted=lambda key: key == OWNER.public_key)
        self.access = Access(policy or own, self.clock, self.revocations.is_revoked, replays)
        self.clock.advance(100)

    async def ask(
        self, token: str | None = None, *, client: str = "8.8.8.8", body: bytes = b"{}", **headers: str
    ) -> Caller | tuple[int, str]:
        lines = [("host", headers.pop("host", HOST)), *((name.replace("_", "-"), headers[name]) for name in headers)]
        if token is not None:
            lines.append(("authorization", f"Bearer {token}"))
        try:
            return await self.access.caller(lines, client, body)
        except Denied as denied:
            return denied.status, denied.code


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_a_token_gives_what_its_key_signed(bench: Bench) -> None:
    found = await bench.ask(tokens.mint(OWNER, claims(namespaces=("notes",))))
    assert found == Caller(OWNER.public_key, frozenset({"read"}), frozenset({"notes"}))


async def test_only_loopback_peers_that_name_loopback_need_no_token(bench: Bench) -> None:
    assert isinstance(await bench.ask(client="127.0.0.1", host="localhost:9"), Caller)
    assert await bench.ask(client="127.0.0.1", host=HOST) == (401, "token_missing")
    assert await bench.ask(client="8.8.8.8", host="localhost:9") == (401, "token_missing")
    for name in ("forwarded", "x_forwarded_for", "x_real_ip", "via"):
        assert await bench.ask(client="127.0.0.1", host="localhost", **proxied(name)) == (401, "token_missing")


async def test_foreign_hosts_and_origins_are_refused_on_loopback_too(bench: Bench) -> None:
    assert await bench.ask(client="127.0.0.1", host="evil.example") == (421, "host")
    assert await bench.ask(client="127.0.0.1", host="localhost", origin="https://evil.example") == (403, "origin")
    assert isinstance(await bench.ask(client="127.0.0.1", host="localhost", origin="http://localhost:3000"), Caller)


async def test_what_is_open_to_all_needs_no_token(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Policy(hosts={HOST}, anyone=frozenset({"read"}), loopback=frozenset()))
    assert await bench.ask() == Caller(scopes=frozenset({"read"}))


@pytest.mark.parametrize(
    ("token", "answer"),
    [
        ("nothing", (401, "invalid_token")),
        (tokens.mint(OWNER, claims(aud="other.example")), (401, "invalid_token")),
        (tokens.mint(OWNER, claims(iat=int(NOW) - 7_200, exp=int(NOW))), (401, "invalid_token")),
        (tokens.mint(OWNER, claims(iat=int(NOW) + 100)), (401, "invalid_token")),
        (tokens.mint(OWNER, claims())[:-3] + "AAA", (401, "invalid_token")),
        (tokens.mint(STRANGER, claims(STRANGER)), (403, "not_permitted")),
        ("x" * 10_000, (401, "invalid_token")),
        ("engram-mcp-1.e30." + "A" * 86, (401, "invalid_token")),
        ("engram-mcp-1." + "A" * 5 + "." + "A" * 86, (401, "invalid_token")),
    ],
    ids=["no token", "elsewhere", "expired", "early", "other signature", "stranger", "long", "no claims", "no JSON"],
)
async def test_tokens_that_are_not_valid_here_are_refused(bench: Bench, token: str, answer: tuple[int, str]) -> None:
    assert await bench.ask(token) == answer
    assert await bench.ask(token, client="127.0.0.1", host=HOST) == answer, "an invalid token is never ignored"


async def test_a_signed_token_of_too_long_a_life_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_S", 10**9)
    token = tokens.mint(OWNER, claims(exp=int(NOW) + 10**8))
    monkeypatch.undo()
    assert await bench.ask(token) == (401, "invalid_token")


async def test_another_scheme_than_bearer_is_refused(bench: Bench) -> None:
    assert await bench.ask(authorization="Basic abc") == (401, "invalid_token")


async def test_a_token_for_one_request_is_taken_once_and_for_its_body_alone(bench: Bench) -> None:
    token = for_body(b"one")
    assert await bench.ask(token, body=b"two") == (401, "invalid_token")
    assert isinstance(await bench.ask(token, body=b"one"), Caller)
    assert await bench.ask(token, body=b"one") == (401, "invalid_token")


async def test_after_a_start_no_token_of_before_it_is_taken_for_one_request(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    before = for_body(b"one", iat=int(NOW) - 99, exp=int(NOW) - 39)
    bench.clock.jump(-60)
    assert await bench.ask(before, body=b"one") == (503, "busy")


async def test_a_full_memory_of_requests_refuses_and_takes_nothing_twice(tmp_path: Path) -> None:
    bench = Bench(tmp_path, replays=ReplayStore(bound=1))
    assert isinstance(await bench.ask(for_body(b"1"), body=b"1"), Caller)
    other = for_body(b"2", id="2" * 32)
    assert await bench.ask(other, body=b"2") == (503, "busy")
    ahead = for_body(b"3", iat=int(NOW) + 20, exp=int(NOW) + 60)
    assert await bench.ask(ahead, body=b"3") == (401, "invalid_token")


async def test_a_revoked_token_is_refused_also_after_a_restart(bench: Bench, tmp_path: Path) -> None:
    token = tokens.mint(OWNER, claims())
    assert isinstance(await bench.ask(token), Caller)
    await bench.revocations.revoke(OWNER.public_key, claims().id, NOW + 3_600, NOW)
    assert await bench.ask(token) == (401, "invalid_token")
    assert await Bench(tmp_path).ask(token) == (401, "invalid_token")
    assert isinstance(await bench.ask(tokens.mint(OWNER, claims(id="f" * 32))), Caller)


async def test_revocations_are_bounded_and_forgotten_when_their_tokens_are_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocation, "MOST_OF_ONE_KEY", 3)
    revocations = RevocationFile(tmp_path / "revoked.json")
    for number in range(3):
        await revocations.revoke(OWNER.public_key, f"{number:032x}", NOW + 10, NOW)
    with pytest.raises(TooMany):
        await revocations.revoke(OWNER.public_key, "f" * 32, NOW + 10, NOW)
    await revocations.revoke(STRANGER.public_key, "f" * 32, NOW + 10, NOW)
    await revocations.revoke(OWNER.public_key, "f" * 32, NOW + 20, NOW + 11)
    assert not await revocations.is_revoked(OWNER.public_key, f"{0:032x}")


def test_a_damaged_file_of_revocations_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "revoked.json").write_bytes(b"{")
    with pytest.raises(ValueError, match="move it away"):
        RevocationFile(tmp_path / "revoked.json")


def test_nobody_mints_for_another_key_or_for_ever() -> None:
    with pytest.raises(ValueError, match="the claims are of"):
        tokens.mint(STRANGER, claims())
    with pytest.raises(ValueError, match="lives 1 to"):
        tokens.mint(OWNER, claims(exp=int(NOW) + tokens.MAX_S + 1))
    with pytest.raises(ValueError, match="lives 1 to"):
        tokens.mint(OWNER, claims(exp=int(NOW) + 61, body="0" * 64))
    with pytest.raises(TokenRefused):
        tokens.claims_of("engram-mcp-1.x.y")
