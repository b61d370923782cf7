"""`engram config` shows what is in force, where it came from, and never a secret."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import config
from config.showing import shown
from tests.cli.conftest import Run


def test_settings_are_shown_with_their_origins(here: Path, run: Run) -> None:
    (here / "engram.toml").write_text("[gateway]\nport = 9100\n")
    (here / ".env").write_text("LOG_LEVEL=debug\n")
    ran = run("config", "show", "gateway.port", "log", "chain.netuids", "--config", "engram.toml")
    assert ran.code == 0
    assert ran.lines == [
        ["key", "value", "from"],
        ["gateway.port", "9100", "file engram.toml"],
        ["log.level", "DEBUG", "env file .env LOG_LEVEL"],
        ["log.format", "auto", "default"],
        ["chain.netuids", "450", "default"],
    ] or ran.lines[1:] == [
        ["log.level", "DEBUG", "env file .env LOG_LEVEL"],
        ["log.format", "auto", "default"],
        ["gateway.port", "9100", "file engram.toml"],
        ["chain.netuids", "450", "default"],
    ]


def test_json_has_every_setting(run: Run) -> None:
    ran = run("config", "show", "--json", "--set", "gateway.auth_required=0")
    document = json.loads(ran.out)
    assert document["gateway.auth_required"] == {"value": False, "origin": "flag gateway.auth_required"}
    assert document["environment"] == {"value": "local", "origin": "profile local"}
    assert set(document) == set(config.load(environ={}).origins)


def test_secrets_in_urls_are_masked(run: Run) -> None:
    ran = run("config", "show", "chain", "relay", "--set", "relay.url=https://me:hunter2@relay.example/in?key=hunter2")
    assert "hunter2" not in ran.out
    assert "https://***@relay.example/in?key=***" in ran.out


def test_values_of_secret_settings_are_masked(monkeypatch: object) -> None:
    loaded = config.load(environ={})
    assert shown(loaded, "gateway.port") == 9000
    assert shown(loaded, "chain.endpoints") == ()


def test_a_check_says_what_keeps_a_role_from_starting(run: Run) -> None:
    assert run("config", "check").code == 0
    ran = run("config", "check", "gateway", "--profile", "mainnet")
    assert ran.code == 2
    assert "X402_RECIPIENT_ADDRESS" in ran.err
    assert run("config", "check", "miner", "--profile", "mainnet").code == 0
    exposed = run("config", "check", "--set", "ops.host=0.0.0.0")
    assert exposed.code == 0
    assert "note: ops.host: 0.0.0.0 is not loopback" in exposed.out


def test_bad_settings_are_told_line_by_line(here: Path, run: Run) -> None:
    (here / "engram.toml").write_text("[gatway]\nport = 1\n")
    ran = run("config", "show", "--config", "engram.toml", "--set", "gateway.port", "--set", "x")
    assert ran.code == 2
    assert "write it as section.key=value" in ran.err
    ran = run("config", "show", "--config", "engram.toml", "--profile", "mainet")
    assert [line.partition(": ")[2].partition(": ")[0] for line in ran.err.splitlines()] == [
        "flag --profile",
        "file engram.toml",
    ]


def test_a_tree_that_must_not_start_does_not(run: Run) -> None:
    ran = run("gateway", "--host", "0.0.0.0")
    assert ran.code == 2
    assert "gateway.host" in ran.err


def test_play_money_is_not_sold_on_a_socket_that_the_world_reaches(here: Path) -> None:
    # The shell puts the socket on descriptor 3 and becomes the process that LISTEN_PID names.
    words = [sys.executable, "-P", "-m", "engram", "gateway", "--data-dir", str(here / "data"), "--ops-port", "0"]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with socket.create_server(("0.0.0.0", 0)) as held:
        command = f'exec 3<&{held.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=gateway exec "$@"'
        done = subprocess.run(
            ["bash", "-c", command, "bash", *words],
            env=environ,
            pass_fds=(held.fileno(),),
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    assert (done.returncode, "socket 'gateway': 0.0.0.0 is not loopback, and play money needs that" in done.stderr) == (
        2,
        True,
    ), done.stderr
    assert not (here / "data").exists()
