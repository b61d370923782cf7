"""Who may call over HTTP, and what tokens are taken."""

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engram.clock import ManualClock
from engram.hotkeys import Keypair, ReplayStore
from engram.mcp import revocation, tokens
from engram.mcp.access import ALL, Access, Arrived, Denied, Policy
from engram.mcp.model import Caller
from engram.mcp.revocation import RevocationFile, TooMany
from engram.mcp.tokens import Claims, TokenRefused

NOW = 1_900_000_000.0
OWNER, STRANGER = Keypair.from_seed(bytes([1]) * 32), Keypair.from_seed(bytes([2]) * 32)
HOST = "agents.example"
BOUND = ("0.0.0.0", 8765)


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
        own = Policy(hosts={HOST}, named_by="--host", loopback=ALL, permitted=lambda key: key == OWNER.public_key)
        self.access = Access(policy or own, self.clock, self.revocations.is_revoked, replays)
        self.clock.advance(100)

    async def ask(
        self,
        token: str | None = None,
        *,
        client: str = "8.8.8.8",
        body: bytes = b"{}",
        bound: tuple[str, int] = BOUND,
        **headers: str,
    ) -> Caller | tuple[int, str]:
        lines = [("host", headers.pop("host", HOST)), *((name.replace("_", "-"), headers[name]) for name in headers)]
        if token is not None:
            lines.append(("authorization", f"Bearer {token}"))
        try:
            return await self.access.caller(Arrived(lines, client, body, bound))
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
    assert await bench.ask(client="8.8.8.8", host="localhost:9") == (421, "host")
    for name in ("forwarded", "x_forwarded_for", "x_forwarded_host", "x_real_ip", "x_client_ip", "cf_ray", "via"):
        assert await bench.ask(client="127.0.0.1", host="localhost", **proxied(name)) == (401, "token_missing")


async def test_a_server_is_closed_to_loopback_unless_it_is_opened(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Policy(permitted=lambda key: key == OWNER.public_key))
    assert await bench.ask(client="127.0.0.1", host="127.0.0.1:8765") == (401, "token_missing")
    token = tokens.mint(OWNER, claims(aud="127.0.0.1:8765"))
    assert isinstance(await bench.ask(token, client="127.0.0.1", host="127.0.0.1:8765"), Caller)


@pytest.mark.parametrize("aud", ["localhost:8765", "127.0.0.1:8765", "[::1]:8765"])
async def test_a_token_for_loopback_is_taken_from_loopback_alone(bench: Bench, aud: str) -> None:
    token = tokens.mint(OWNER, claims(aud=aud))
    assert isinstance(await bench.ask(token, client="127.0.0.1", host=aud), Caller)
    assert await bench.ask(token, host=aud) == (421, "host")
    assert await bench.ask(token) == (401, "invalid_token")


@pytest.mark.parametrize("host", ["localhost:1234", "agents.example:1234"])
async def test_a_token_for_another_server_is_refused_also_when_the_client_writes_its_name(
    bench: Bench, host: str
) -> None:
    token = tokens.mint(OWNER, claims(aud=host))
    assert await bench.ask(token, client="127.0.0.1", host=host) == (401, "invalid_token")


async def test_a_server_off_loopback_is_known_by_its_address_and_by_its_names(bench: Bench) -> None:
    own = ("10.0.0.5", 8765)
    token = tokens.mint(OWNER, claims(aud="10.0.0.5:8765"))
    assert isinstance(await bench.ask(token, host="10.0.0.5:8765", bound=own), Caller)
    assert await bench.ask(token, host="10.0.0.6:8765", bound=own) == (421, "host")
    assert await bench.ask(token, host="10.0.0.5:8765") == (421, "host"), "any address is no name"
    named = tokens.mint(OWNER, claims(aud=f"{HOST}:8765"))
    assert isinstance(await bench.ask(named, host=f"{HOST}:8765", bound=own), Caller)
    with pytest.raises(Denied, match=r"not known as 'box\.lan': add that to --host"):
        await bench.access.caller(Arrived([("host", "box.lan")], "8.8.8.8", b"", own))


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
    await revocations.revoke(OWNER.public_key, f"{2:032x}", NOW + 10, NOW)
    with pytest.raises(TooMany):
        await revocations.revoke(OWNER.public_key, "f" * 32, NOW + 10, NOW)
    await revocations.revoke(STRANGER.public_key, "f" * 32, NOW + 10, NOW)
    await revocations.revoke(OWNER.public_key, "f" * 32, NOW + 20, NOW + 11)
    again = RevocationFile(tmp_path / "revoked.json")
    await again.revoke(OWNER.public_key, "e" * 32, NOW + 20, NOW + 11)
    assert not await revocations.is_revoked(OWNER.public_key, f"{0:032x}")
    assert await revocations.is_revoked(OWNER.public_key, "e" * 32)


async def test_two_processes_share_a_file_of_revocations(tmp_path: Path) -> None:
    path = tmp_path / "revoked.json"
    one, other = RevocationFile(path), RevocationFile(path)
    await one.revoke(OWNER.public_key, "a" * 32, NOW + 10, NOW)
    await other.revoke(OWNER.public_key, "b" * 32, NOW + 10, NOW)
    for each in (one, other, RevocationFile(path)):
        assert await each.is_revoked(OWNER.public_key, "a" * 32)
        assert await each.is_revoked(OWNER.public_key, "b" * 32)


async def test_strangers_cannot_use_up_the_room_for_revocations(tmp_path: Path) -> None:
    path = tmp_path / "revoked.json"
    rows = [{"key": f"{n // 100:064x}", "id": f"{n % 100:032x}", "until": NOW + 90 * 86_400} for n in range(20_000)]
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    revocations = RevocationFile(path)
    await revocations.revoke(OWNER.public_key, "c" * 32, NOW + 10, NOW)
    await revocations.revoke(OWNER.public_key, "d" * 32, NOW + 10, NOW)
    again = RevocationFile(path)
    for token_id in ("c" * 32, "d" * 32):
        assert await again.is_revoked(OWNER.public_key, token_id)
    assert await again.is_revoked(bytes(31) + b"\x01", f"{99:032x}")


async def test_a_revocation_that_was_cut_off_spoils_none_after_it(tmp_path: Path) -> None:
    path = tmp_path / "revoked.json"
    revocations = RevocationFile(path)
    await revocations.revoke(OWNER.public_key, "a" * 32, NOW + 10, NOW)
    with path.open("ab") as file:
        file.write(b'{"key":"00')
    await revocations.revoke(OWNER.public_key, "b" * 32, NOW + 10, NOW)
    again = RevocationFile(path)
    assert await again.is_revoked(OWNER.public_key, "a" * 32)
    assert await again.is_revoked(OWNER.public_key, "b" * 32)


def test_a_damaged_file_of_revocations_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "revoked.json").write_bytes(b"{\n")
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
