"""`engram registry` against a chain on a real socket: what is committed, what is told, how it ends."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engram.chain.errors import CallRefused
from engram.hotkeys import Keypair
from engram.hotkeys.wallet_folder import WalletFolder, write_public
from tests.cli.chains import served, write_wallet
from tests.cli.conftest import Ran, Run
from tests.fakes.chain import ChainServer
from tests.fakes.living_chain import LivingChain

ROOT = Path(__file__).parents[2]
HOTKEY = Keypair.from_uri("//sn450//hot//7")
COLDKEY = Keypair.from_uri("//sn450//cold//7")
NOBODY = Keypair.from_uri("//nobody")


@pytest.fixture
def chain() -> LivingChain:
    return LivingChain()


@pytest.fixture
def server(chain: LivingChain) -> Iterator[ChainServer]:
    with served(chain) as server:
        yield server


@pytest.fixture
def wallets(here: Path) -> Path:
    write_wallet(here / "wallets", "cold", hotkey=HOTKEY, coldkey=COLDKEY)
    return write_wallet(here / "wallets", "stranger", hotkey=NOBODY, coldkey=COLDKEY)


Registry = Any


@pytest.fixture
def registry(run: Run, server: ChainServer, wallets: Path) -> Registry:
    def command(name: str, *more: str, wallet: str = "cold") -> Ran:
        options = ["--netuid", "450", "--endpoint", server.url, "--wallet.path", str(wallets)]
        options += ["--wallet.name", wallet, "--wallet.hotkey", "hot"]
        patience = ["--patience", "5"] if name == "register" and "--patience" not in more else []
        return run("registry", name, *options, *patience, *more)

    return command


def test_a_dry_run_shows_what_would_be_committed_and_sends_nothing(
    registry: Registry, server: ChainServer, chain: LivingChain
) -> None:
    ran = registry("register", "--address", "13.89.38.129", "--port", "9999")
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "=== Registration Summary ===",
        f"Coldkey: {COLDKEY.ss58}",
        f"Hotkey: {HOTKEY.ss58}",
        f"Network: {server.url}",
        "Netuid: 450",
        "String to commit: 13.89.38.129:9999",
        "===========================",
        "Offline mode - Skipping chain commit",
    ]
    assert chain.asked == []


def test_a_registration_is_committed_and_read_back(registry: Registry, chain: LivingChain) -> None:
    ran = registry("register", "--address", "13.89.38.129", "--port", "9999", "--online")
    assert ran.code == 0
    assert ran.out.splitlines()[-3:] == [
        "Making commit call...",
        "Commit result: True",
        f"Successfully committed 13.89.38.129:9999 under {HOTKEY.ss58} on netuid 450",
    ]
    held = chain.get("Commitments", "CommitmentOf", 450, HOTKEY.public_key)
    assert bytes.fromhex(held["info"]["fields"][0]["Raw17"][2:]) == b"13.89.38.129:9999"


def test_register_is_what_is_meant_when_no_command_is_named(run: Run, wallets: Path, server: ChainServer) -> None:
    ran = run(
        *["registry", "--netuid", "450", "--endpoint", server.url, "--wallet.path", str(wallets)],
        *["--wallet.name", "cold", "--wallet.hotkey", "hot", "--address", "13.89.38.129", "--port", "1"],
    )
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "Offline mode - Skipping chain commit")


def test_the_documents_own_command_line_is_understood(run: Run, wallets: Path, server: ChainServer) -> None:
    ran = run(
        *["registry", "register", "--network", "finney", "--netuid", "11", "--wallet.name", "cold"],
        *["--wallet.hotkey", "hot", "--address", "13.89.38.129", "--port", "9999", "--logging.debug"],
        *["--wallet.path", str(wallets), "--subtensor.chain_endpoint", server.url],
    )
    assert ran.code == 0


def test_a_dry_run_reads_no_secret(registry: Registry, wallets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENGRAM_WALLET_PASSWORD", raising=False)
    folder = WalletFolder("cold", "hot", wallets)
    write_public(folder.hotkey_public_path, HOTKEY)
    folder.hotkey_path.write_bytes(b"$NACL, and what nobody deciphers here")
    ran = registry("register", "--address", "13.89.38.129", "--port", "9999")
    assert (ran.code, f"Hotkey: {HOTKEY.ss58}" in ran.out) == (0, True)
    ran = registry("register", "--address", "13.89.38.129", "--port", "9999", "--online")
    assert (ran.code, "is encrypted" in ran.err) == (1, True)


def test_an_endpoint_that_is_none_is_told_before_any_key_is_read(registry: Registry) -> None:
    ran = registry("register", "--address", "13.89.38.129", "--port", "99999", "--online", wallet="no such wallet")
    assert (ran.code, ran.out, ran.err) == (1, "Invalid input: Port must be between 0 and 65535\n", "")


def test_debugging_tells_what_was_asked_and_never_what_was_signed(registry: Registry, chain: LivingChain) -> None:
    there = ("--address", "13.89.38.129", "--port", "9999", "--online")
    quiet = registry("register", *there)
    held = chain.get("Commitments", "CommitmentOf", 450, HOTKEY.public_key)
    chain.put(held | {"block": 1}, "Commitments", "CommitmentOf", 450, HOTKEY.public_key)  # an earlier epoch's
    told = registry("register", *there, "--logging.debug")
    assert (quiet.code, told.code) == (0, 0)
    assert told.out == quiet.out
    assert "debug:" not in quiet.err
    asked = [line for line in told.err.splitlines() if line.startswith("debug: http://127.0.0.1:")]
    for name in ("chain_getFinalizedHead", "state_call Metadata_metadata_at_version", "author_submitExtrinsic"):
        assert any(name in line and " ms" in line for line in asked)
    assert max(map(len, asked)) < 250


def test_debugging_tells_what_failed(run: Run, server: ChainServer) -> None:
    server.double.refuse["state_getKeysPaged"] = CallRefused(-32000, "pruned")
    ran = run("registry", "check", "--netuid", "450", "--endpoint", server.url, "--logging.trace")
    assert ran.code == 1
    assert any("state_getKeysPaged: refused: pruned (-32000) in" in line for line in ran.err.splitlines())


@pytest.mark.parametrize("address", ["2001:db8::1", "[2001:db8::1]"])
def test_an_ipv6_address_is_committed_in_brackets(address: str, registry: Registry, chain: LivingChain) -> None:
    ran = registry("register", "--address", address, "--port", "8091", "--online", "--allow-private")
    assert ran.code == 0
    held = chain.get("Commitments", "CommitmentOf", 450, HOTKEY.public_key)
    assert bytes.fromhex(held["info"]["fields"][0]["Raw18"][2:]) == b"[2001:db8::1]:8091"


@pytest.mark.parametrize(
    ("address", "port", "told"),
    [
        ("a" * 46, "80", f"Address '{'a' * 46}' exceeds maximum length of 45"),
        ("ä" * 23, "80", f"Address '{'ä' * 23}' exceeds maximum length of 45"),
        ("13.89.38.129", "999999", "Port '999999' exceeds maximum length of 5"),
        ("13.89.38.129", "70000", "Invalid input: Port must be between 0 and 65535"),
        ("13.89.38.129", "-1", "Invalid input: Port must be between 0 and 65535"),
        ("13.89.38.129", "http", "Invalid input: Port must be a valid number"),
        ("13.89.38.129", " 80", "Invalid input: Port must be a valid number"),
        ("13.89.38.129", "+80", "Invalid input: Port must be a valid number"),
        ("13.89.38.129", "0", "Invalid input: Port 0 cannot be connected to"),
        ("", "80", "Invalid input: Address '' is neither an IP address nor a host name"),
        (
            "127.0.0.1",
            "80",
            "Invalid input: Address 127.0.0.1 cannot be reached from the internet (--allow-private commits it)",
        ),
    ],
)
def test_what_is_no_endpoint_is_refused_before_anything_is_asked(
    address: str, port: str, told: str, registry: Registry, chain: LivingChain
) -> None:
    ran = registry("register", f"--address={address}", f"--port={port}", "--online")
    assert ran.code == 1
    assert ran.out.splitlines() == [told]
    assert chain.asked == []


def test_a_refusal_inside_the_block_is_named_and_fails(registry: Registry) -> None:
    ran = registry("register", "--address", "13.89.38.129", "--port", "9999", "--online", wallet="stranger")
    assert ran.code == 1
    last = ran.out.splitlines()[-1]
    assert last.startswith("Error during commit: AccountNotAllowedCommit: Account is not")
    assert "engram subnet register" in last
    assert "Successfully" not in ran.out


def test_a_rate_limit_is_explained(registry: Registry, chain: LivingChain) -> None:
    chain._used_space[HOTKEY.public_key] = ((chain.head + 450 + 1) // 10_001, 3_100)
    chain.tempo = 10_000
    ran = registry("register", "--address", "13.89.38.129", "--port", "9999", "--online")
    assert ran.code == 1
    assert "SpaceLimitExceeded" in ran.out
    assert "31 commits" in ran.out


def test_a_commit_that_is_not_seen_is_unknown_and_has_its_own_exit_code(registry: Registry, chain: LivingChain) -> None:
    chain.seal_at_look = False
    ran = registry("register", "--address", "13.89.38.129", "--port", "9999", "--online", "--patience", "0.2")
    assert ran.code == 4
    assert "OutcomeUnknown" in ran.out
    assert "check before sending again" in ran.out
    assert ran.err.startswith("sending 0x")
    assert ran.err.splitlines()[0].split()[1].rstrip(",") in ran.out


def test_an_endpoint_that_is_down_fails(run: Run, wallets: Path) -> None:
    ran = run(
        *["registry", "register", "--endpoint", "http://127.0.0.1:9", "--wallet.path", str(wallets), "--online"],
        *["--wallet.name", "cold", "--wallet.hotkey", "hot", "--address", "13.89.38.129", "--port", "9999"],
    )
    assert ran.code == 1
    assert ran.out.splitlines()[-1].startswith("Error during commit: EndpointUnreachable: http://127.0.0.1:9: ")


def test_two_processes_that_commit_at_once_are_both_told_the_truth(
    registry: Registry, chain: LivingChain, wallets: Path, server: ChainServer
) -> None:
    def command(port: str) -> list[str]:
        code = "import sys; from engram.cli import main; sys.exit(main())"
        return [
            *[sys.executable, "-c", code, "registry", "register", "--netuid", "450", "--endpoint", server.url],
            *["--wallet.path", str(wallets), "--wallet.name", "cold", "--wallet.hotkey", "hot", "--online"],
            *["--address", "13.89.38.129", "--port", port, "--format", "json", "--patience", "10"],
        ]

    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command(port), cwd=ROOT, **pipes) for port in ("1111", "2222")]
    answers = [one.communicate(timeout=30) for one in both]
    told = [json.loads(out) for (out, _), one in zip(answers, both, strict=True) if one.returncode == 0]
    late = [said for (_, said), one in zip(answers, both, strict=True) if one.returncode != 0]
    assert told
    assert all("CommittedInEpoch: this hotkey has committed in block" in said for said in late)
    newest = max(told, key=lambda one: one["block"])
    assert len({one["extrinsic_hash"] for one in told}) == len(told)
    held = chain.get("Commitments", "CommitmentOf", 450, HOTKEY.public_key)
    assert bytes.fromhex(held["info"]["fields"][0]["Raw17"][2:]).decode() == newest["committed"]


def filled(chain: LivingChain) -> None:
    fields: list[tuple[int, Any]] = [
        (2, {"Raw17": "0x" + b"13.89.38.129:9999".hex()}),
        (3, {"Raw18": "0x" + b"[2001:db8::1]:8091".hex()}),
        (4, {"Raw16": "0x" + b"2001:db8::1:8091".hex()}),
        (5, {"Raw6": "0xfffe00626164"}),
        (6, {"Raw27": "0x" + b"myorg:my-model:abc123:llama".hex()}),
        (7, {"Sha256": "0x" + "11" * 32}),
        (8, "ResetBondsFlag"),
        (9, {"Raw0": "0x"}),
    ]
    for number, field in fields:
        account = Keypair.from_uri(f"//sn450//hot//{number}").public_key
        info = {"fields": [field]}
        chain.put({"deposit": 0, "block": 1000 + number, "info": info}, "Commitments", "CommitmentOf", 450, account)


def test_check_tells_every_entry_in_upstreams_lines(
    registry: Registry, server: ChainServer, chain: LivingChain
) -> None:
    filled(chain)
    ran = registry("check")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[:6] == [
        "",
        "=" * 80,
        "ALL COMMITMENTS FOR NETUID: 450",
        f"Network: {server.url}",
        "Total commitments: 9",
        "=" * 80,
    ]
    assert lines[6:11] == ["", "Summary: 3 valid, 6 invalid", "-" * 80, "", f"{'=' * 20} VALID COMMITMENTS {'=' * 20}"]
    entry = lines.index(f"Hotkey: {Keypair.from_uri('//sn450//hot//2').ss58}")
    assert lines[entry - 1 : entry + 6] == [
        "",
        f"Hotkey: {Keypair.from_uri('//sn450//hot//2').ss58}",
        "Block: 1002",
        "Address: 13.89.38.129",
        "Port: 9999",
        "String Length: 17",
        "-" * 40,
    ]
    assert lines.count("Address: 2001:db8::1") == 2
    assert f"{'=' * 20} INVALID COMMITMENTS {'=' * 20}" in lines
    assert "Raw String: \\xff\\xfe\\x00bad" in lines
    assert lines[-3:] == ["", "Tip: Use --verbose to see detailed error information", "=" * 80]


def test_check_verbose_tells_why(registry: Registry, chain: LivingChain) -> None:
    filled(chain)
    lines = registry("check", "--verbose").out.splitlines()
    at = lines.index(f"Hotkey: {Keypair.from_uri('//sn450//hot//6').ss58}")
    assert lines[at : at + 7] == [
        f"Hotkey: {Keypair.from_uri('//sn450//hot//6').ss58}",
        "Block: 1006",
        "Raw String: myorg:my-model:abc123:llama",
        "String Length: 27",
        "Error Type: ValueError",
        "Error: Invalid compressed string format: myorg:my-model:abc123:llama",
        "-" * 40,
    ]
    at = lines.index(f"Hotkey: {Keypair.from_uri('//sn450//hot//7').ss58}")
    assert lines[at + 4 : at + 6] == ["Error Type: MissingData", "Error: No valid chain string found in commitment"]
    assert not any(line.startswith("Tip:") for line in lines)


def test_read_tells_every_text(registry: Registry, chain: LivingChain) -> None:
    filled(chain)
    lines = registry("read").out.splitlines()
    assert lines[:4] == ["", "=" * 100, "MINER REGISTRATIONS (Total: 6)", "=" * 100]
    at = lines.index(f"Hotkey: {Keypair.from_uri('//sn450//hot//2').ss58}")
    assert lines[at - 1 : at + 7] == [
        "",
        f"Hotkey: {Keypair.from_uri('//sn450//hot//2').ss58}",
        "Block: 1002",
        "Raw Chain String: 13.89.38.129:9999",
        "Decoded Fields:",
        "  - address: 13.89.38.129",
        "  - port: 9999",
        "-" * 80,
    ]
    at = lines.index("Raw Chain String: myorg:my-model:abc123:llama")
    assert lines[at + 1] == "Error: Invalid compressed string format: myorg:my-model:abc123:llama"


def test_check_as_json_is_one_document(registry: Registry, chain: LivingChain) -> None:
    filled(chain)
    entries = json.loads(registry("check", "--format", "json").out)
    assert len(entries) == 9
    assert sum(entry["valid"] for entry in entries) == 3


def test_a_subnet_without_commitments_says_so(run: Run, server: ChainServer) -> None:
    for command, told in (("check", "No commitments found for netuid 1"), ("read", "No registrations found")):
        ran = run("registry", command, "--netuid", "1", "--endpoint", server.url)
        assert (ran.code, ran.err.strip()) == (0, told)


@pytest.mark.parametrize("netuid", ["12", "70000", "-1"])
def test_a_subnet_that_the_chain_does_not_have_is_not_told_as_an_empty_one(
    run: Run, server: ChainServer, netuid: str
) -> None:
    for command in ("check", "read"):
        ran = run("registry", command, "--netuid", netuid, "--endpoint", server.url)
        assert (ran.code, ran.out, ran.err) == (1, "", f"engram: the chain has no subnet {netuid}\n")


def test_probing_refuses_addresses_that_are_not_public(registry: Registry, chain: LivingChain) -> None:
    chain.put(
        {"deposit": 0, "block": 1, "info": {"fields": [{"Raw11": "0x" + b"127.0.0.1:1".hex()}]}},
        "Commitments",
        "CommitmentOf",
        450,
        HOTKEY.public_key,
    )
    lines = registry("check", "--probe").out.splitlines()
    assert "Check Endpoint: invalid" in lines
    (entry,) = [one for one in json.loads(registry("check", "--probe", "--format", "json").out) if one["valid"]]
    assert entry["endpoint_valid"] is False
    assert "not a public address" in entry["endpoint_error"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_file_that_others_may_read_is_refused(mode: int, registry: Registry, wallets: Path) -> None:
    path = wallets / "cold" / "hotkeys" / "hot"
    path.chmod(mode)
    ran = registry("register", "--address", "13.89.38.129", "--port", "9999")
    assert ran.code == 1
    assert f"chmod 600 {path}" in ran.err


def test_a_commit_that_another_one_replaced_in_its_block_is_told(registry: Registry, chain: LivingChain) -> None:
    seal = chain.seal

    def seal_and_replace() -> None:
        seal()
        if chain.blocks[chain.head]:
            info = {"fields": [{"Raw5": "0x" + b"other".hex()}]}
            value = {"deposit": 0, "block": chain.head, "info": info}
            chain.put(value, "Commitments", "CommitmentOf", 450, HOTKEY.public_key)

    chain.seal = seal_and_replace  # type: ignore[method-assign] # another process of the same key
    ran = registry("register", "--address", "13.89.38.129", "--port", "9999", "--online")
    assert ran.code == 1
    assert "but replaced there: the chain holds b'other'" in ran.out


def test_a_commit_that_cannot_be_read_back_is_no_failure(registry: Registry, chain: LivingChain) -> None:
    read = chain._read

    def read_events_only(key: str, at: Any) -> Any:
        if chain.pool or not any(chain.blocks.values()) or key == chain._key("System", "Events"):
            return read(key, at)
        return CallRefused(4003, "State already discarded")

    chain._read = read_events_only  # type: ignore[method-assign] # a light node that has forgotten
    ran = registry("register", "--address", "13.89.38.129", "--port", "9999", "--online")
    assert ran.code == 4
    assert "NotReadBack" in ran.out
    assert "is in finalized block" in ran.out


def test_endpoints_that_differ_are_told(run: Run, server: ChainServer, chain: LivingChain) -> None:
    filled(chain)
    chain.seal_at_look = False
    other = LivingChain(head=chain.head)
    other.seal_at_look = False
    with served(other) as second:
        ran = run("registry", "check", "--netuid", "450", "--endpoint", server.url, "--endpoint", second.url)
    assert (ran.code, ran.out) == (1, "")
    assert "differ on state_getKeysPaged" in ran.err


def test_a_table_has_a_row_for_every_entry(registry: Registry, chain: LivingChain) -> None:
    filled(chain)
    ran = registry("check", "--format", "table")
    assert ran.lines[0] == ["hotkey", "block", "address", "port", "endpoint", "problem"]
    assert len(ran.lines) == 10
    assert ran.err.strip().endswith("9 commitments, 3 valid, 6 invalid (--verbose says why)")
    assert registry("check", "--format", "table", "--verbose").err.strip().endswith("3 valid, 6 invalid")
    ran = registry("read", "--format", "table", "--probe")
    assert len(ran.lines) == 7


def test_the_network_that_is_told_is_the_one_that_was_named(registry: Registry, server: ChainServer) -> None:
    there = ("--address", "13.89.38.129", "--port", "9999", "--format", "json")
    assert json.loads(registry("register", *there).out)["network"] == server.url
    assert json.loads(registry("register", *there, "--network", "test").out)["network"] == "test"


def test_the_network_is_finney_when_nothing_is_named(run: Run, wallets: Path) -> None:
    wallet = ["--wallet.path", str(wallets), "--wallet.name", "cold", "--wallet.hotkey", "hot"]
    ran = run("registry", "register", *wallet, "--address", "13.89.38.129", "--port", "9999")
    assert "Network: finney" in ran.out.splitlines()


@pytest.mark.parametrize("url", ["nonsense", "ftp://node.example", "http://", "https://[bad"])
def test_an_endpoint_that_is_no_url_is_a_mistake_of_the_command_line(run: Run, url: str) -> None:
    for command in (["registry", "check"], ["subnet", "status", "--hotkey", HOTKEY.ss58]):
        ran = run(*command, "--netuid", "450", "--endpoint", url)
        assert (ran.code, "--endpoint: " in ran.err) == (2, True)


def test_json_tells_what_was_committed_and_where(registry: Registry, chain: LivingChain) -> None:
    there = ["--address", "13.89.38.129", "--port", "9999", "--format", "json"]
    planned = json.loads(registry("register", *there).out)
    assert (planned["online"], planned["block"]) == (False, None)
    done = json.loads(registry("register", *there, "--online").out)
    assert done["committed"] == "13.89.38.129:9999"
    assert done["block_hash"] == chain.hash(done["block"])
    failed = registry("register", "--address", "127.0.0.1", "--port", "1", "--format", "json")
    assert (failed.code, failed.out) == (1, "")
    assert "cannot be reached" in failed.err


def test_an_endpoint_that_falls_silent_fails_in_its_time(run: Run, server: ChainServer, chain: LivingChain) -> None:
    chain.delay_s = 60.0
    ran = run("registry", "check", "--netuid", "450", "--endpoint", server.url, "--timeout", "0.2")
    assert (ran.code, ran.out) == (1, "")
    assert "no answer" in ran.err
    chain.delay_s = 0.0


def test_control_characters_that_strangers_commit_never_reach_the_terminal(
    registry: Registry, chain: LivingChain
) -> None:
    payload = b"\x1b[2J\nHotkey: 5Fake"
    info = {"fields": [{f"Raw{len(payload)}": "0x" + payload.hex()}]}
    chain.put({"deposit": 0, "block": 1, "info": info}, "Commitments", "CommitmentOf", 450, HOTKEY.public_key)
    for command in (["check", "--verbose"], ["read"]):
        ran = registry(*command)
        assert "\x1b" not in ran.out
        assert "Hotkey: 5Fake" not in ran.out.splitlines()


HOSTILE = "\x1b]0;owned\x07\u202e\u009b2J\u2066日本"


def hostile(chain: LivingChain) -> None:
    """A miner that has read how terminals work."""
    payload = HOSTILE.encode()
    info = {"fields": [{f"Raw{len(payload)}": "0x" + payload.hex()}]}
    chain.put({"deposit": 0, "block": 1, "info": info}, "Commitments", "CommitmentOf", 450, HOTKEY.public_key)


@pytest.mark.parametrize("shown", ["upstream", "table", "json"])
@pytest.mark.parametrize("command", ["check", "read"])
def test_what_a_miner_commits_moves_no_cursor_and_turns_no_line(
    command: str, shown: str, registry: Registry, chain: LivingChain
) -> None:
    hostile(chain)
    ran = registry(command, "--format", shown, *(["--verbose"] if command == "check" else []))
    assert ran.code == 0
    assert all(line.replace("\t", "").isprintable() for line in ran.out.splitlines())
    if shown == "json":
        assert HOSTILE in {entry["raw"] for entry in json.loads(ran.out)}


def test_a_terminal_that_knows_ascii_only_is_shown_escapes(server: ChainServer, chain: LivingChain) -> None:
    hostile(chain)
    command = [
        "-c",
        "import sys; from engram.cli import main; sys.exit(main())",
        "registry",
        "check",
        "--netuid",
        "450",
        "--endpoint",
        server.url,
        "--format",
        "upstream",
    ]
    environ = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, *command], capture_output=True, env=environ, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"\\u65e5" in ran.stdout


@pytest.mark.parametrize("address", ["localhost", "miner.local", "vm.internal", "nas.lan", "router"])
def test_a_name_of_one_site_is_committed_only_when_that_is_meant(registry: Registry, address: str) -> None:
    there = ("--address", address, "--port", "9999")
    ran = registry("register", *there)
    assert (ran.code, f"{address} cannot be reached from the internet (--allow-private commits it)" in ran.out) == (
        1,
        True,
    )
    assert registry("register", *there, "--allow-private").code == 0


@pytest.mark.parametrize("option", ["--network", "--subtensor.network"])
def test_an_endpoint_may_stand_in_the_place_of_a_network(run: Run, server: ChainServer, option: str) -> None:
    ran = run("registry", "check", "--netuid", "450", option, server.url.replace("http://", "ws://"))
    assert ran.code == 0, ran.err
    assert server.double.asked != []


def test_the_archive_is_a_network_too(run: Run, wallets: Path) -> None:
    wallet = ["--wallet.path", str(wallets), "--wallet.name", "cold", "--wallet.hotkey", "hot"]
    ran = run("registry", "register", *wallet, "--network", "archive", "--address", "13.89.38.129", "--port", "9999")
    assert "Network: archive" in ran.out.splitlines()


def test_a_network_that_is_none_is_a_mistake_of_the_command_line_that_names_those_there_are(run: Run) -> None:
    ran = run("registry", "check", "--network", "fynney")
    assert ran.code == 2
    assert "'fynney' is neither one of finney, test, archive, local, recorded nor a URL such as wss://" in ran.err
    assert run("registry", "check", "--network", "ftp://a").code == 2
