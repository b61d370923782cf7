"""The settings' sources and their order, and refusals that name the key and what would be right."""

import json
from pathlib import Path
from typing import Any

import pytest

from config.errors import ConfigError
from engram.proxy.settings import load
from engram.proxy.settings.environment import VARIABLES
from engram.proxy.settings.words import cautions, explain
from tests.proxy.signing import ALICE, BOB, EVE

VALUES = {
    "MINER_HOTKEY": (EVE.ss58, EVE.ss58),
    "HOST": ("127.0.0.1", "127.0.0.1"),
    "PORT": ("8099", 8099),
    "RELOAD": ("false", False),
    "LOG_LEVEL": ("debug", "DEBUG"),
    "LOG_FORMAT": ("json", "json"),
    "CHAIN_ENDPOINT": ("https://chain.example", "https://chain.example"),
    "ALLOWED_DELTA_MS": ("9000", 9000),
    "CACHE_DURATION": ("60", 60.0),
    "TRAINING_SERVER_URL": ("http://t:1", "http://t:1"),
    "INFERENCE_SERVER_URL": ("http://i:1", "http://i:1"),
    "CORS_ORIGINS": ("https://a.example, https://b.example", ("https://a.example", "https://b.example")),
    "MAX_REQUEST_SIZE": ("104857600", 104857600),
    "REQUEST_TIMEOUT": ("30", 30.0),
    "RATE_LIMIT_PER_MINUTE": ("100", 100),
    "MIN_STAKE_REQUIRED": ("65000", 65000.0),
}


def written(folder: Path, settings: dict[str, Any], toml: str = "", env: str = "") -> Path:
    (folder / "reverse_proxy").mkdir(exist_ok=True)
    (folder / "reverse_proxy" / "config.json").write_text(json.dumps(settings))
    if toml:
        (folder / "reverse_proxy" / "config.toml").write_text(toml)
    if env:
        (folder / ".env").write_text(env)
    return folder


ORIGINAL: dict[str, Any] = {
    "server": {"host": "0.0.0.0", "port": 8080, "reload": False, "log_level": "INFO"},
    "auth": {
        "miner_hotkey": BOB.ss58,
        "allowed_delta_ms": 8000,
        "cache_duration": 3600,
        "chain_endpoint": "wss://entrypoint-finney.opentensor.ai:443",
        "allowed_senders": ["5HauDwEzvs3MHhLooiiL7GWpxFGTuVzhwDBb5NqDyES25VLd"],
        "self-debug-key": "x",
    },
    "services": {"training_server_url": "http://localhost:8091", "inference_server_url": "http://localhost:8091"},
}


def test_the_originals_file_is_read_as_it_is(tmp_path: Path) -> None:
    settings = load({}, written(tmp_path, ORIGINAL)).settings
    assert settings.auth.allowed_senders == ("5HauDwEzvs3MHhLooiiL7GWpxFGTuVzhwDBb5NqDyES25VLd",)
    assert settings.auth.self_debug_key == "x"
    assert "self" not in repr(settings.auth)
    assert [(route.path, route.backend) for route in settings.table()] == [
        ("/train", "training"),
        ("/inference", "inference"),
    ]


@pytest.mark.parametrize("name", VARIABLES)
def test_each_variable_of_the_original_works_and_wins_over_the_file(name: str, tmp_path: Path) -> None:
    text, value = VALUES[name]
    section, _, key = VARIABLES[name].partition(".")
    folder = written(tmp_path, ORIGINAL, env=f"{name}={text}\n")
    loaded = load({}, folder)
    assert getattr(getattr(loaded.settings, section), key) == value
    assert loaded.origins[VARIABLES[name]] == f"env file {folder / '.env'} {name}"
    assert load({name: text}, folder).origins[VARIABLES[name]] == f"environment {name}"


def test_later_sources_win_file_toml_env_environment(tmp_path: Path) -> None:
    folder = written(tmp_path, ORIGINAL, "[server]\nport = 2\nhost = '::1'\n", "PORT=3\n")
    assert load({}, folder).settings.server.port == 3
    assert load({"PORT": "4"}, folder).settings.server.port == 4
    assert load({}, folder).settings.server.host == "::1"


def test_the_variable_names_a_file_a_folder_or_a_toml_file(tmp_path: Path) -> None:
    folder = written(tmp_path, ORIGINAL)
    for named in ("reverse_proxy", "reverse_proxy/config.json"):
        assert load({"REVERSE_PROXY_CONFIG_PATH": named}, folder).settings.auth.miner_hotkey == BOB.ss58
    (folder / "own.toml").write_text(f'[auth]\nminer_hotkey = "{ALICE.ss58}"\n')
    assert load({"REVERSE_PROXY_CONFIG_PATH": "own.toml"}, folder).settings.auth.miner_hotkey == ALICE.ss58
    with pytest.raises(ConfigError, match="Configuration file not found at"):
        load({"REVERSE_PROXY_CONFIG_PATH": "absent.json"}, folder)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"auth": {"miner_hotkey": ""}}, "auth.miner_hotkey: Configuration missing 'auth.miner_hotkey'"),
    ({"auth": {"miner_hotkey": "<your-hotkey>"}}, "auth.miner_hotkey: '<your-hotkey>' is the example's placeholder"),
    ({"auth": {"miner_hotkey": "5abc"}}, "auth.miner_hotkey: '5abc' is no SS58 address"),
    ({"server": {"port": "x"}}, "server.port: Invalid integer for server.port: 'x' is not a whole number from 0"),
    ({"server": {"prot": 1}}, "server.prot: there is no such setting; did you mean 'port'?"),
    ({"sever": {}}, "sever: there is no such section; did you mean 'server'?"),
    ({"auth": {"allowed_senders": 7}}, "auth.allowed_senders: auth.allowed_senders must be a sequence of strings"),
    ({"auth": {"schemes": ["epistula"]}}, "auth.schemes: 'epistula' is not one of epistula-v2, dippy"),
    ({"auth": {"get_body_candidates": ["x"]}}, "auth.get_body_candidates: 'x' is neither"),
    ({"server": {"tls_certificate": "a.pem"}}, "server.tls_key: is not set"),
    ({"server": {"cors_origins": ["*"]}}, "server.cors_origins: '*' is no exact origin"),
    ({"server": {"public_url": "http://m"}}, "server.public_url: 'http://m' does not begin with https://"),
    ({"services": {"training_server_url": "localhost:1"}}, "services.training_server_url: 'localhost:1' is no http"),
    ({"routes": [{"path": "x", "backend": "training"}]}, "routes[0]: path is 'x'; write an exact path"),
    ({"routes": [{"path": "/x", "backend": "trainin"}]}, "did you mean 'training'?"),
    ({"routes": [{"path": "/status", "backend": "training"}]}, "which the proxy answers itself"),
    ({"routes": [{"path": "/x", "backend": "training", "methods": ["CONNECT"]}]}, "no method that can be passed on"),
    ({"backends": {"b": {"urls": []}}}, "backends.b: urls is empty"),
    ({"services": {"inference_server_url": "http://gpu.intern/\u00e4"}}, "percent-encode what is not ASCII"),
    ({"backends": {"b": {"urls": ["http://b/\u00e4"]}}}, "backends.b: 'http://b/\u00e4' is no http or https URL"),
    ({"backends": {"b": {"urls": ["http://b"], "ca_file": "a\0b"}}}, "backends.b: ca_file is 'a\\x00b'"),
    ({"backends": {"b": {"urls": ["http://b"], "health_path": "/\u00e4"}}}, "backends.b: health_path is '/\u00e4'"),
    ({"backends": {"b": {"urls": ["http://b"], "health_path": "/a\r\nX: y"}}}, "backends.b: health_path is"),
    ({"backends": {"b": {"urls": ["http://b"], "health_path": "up"}}}, "a path begins with a slash"),
    ({"server": {"host": "a\0"}}, "server.host: 'a\\x00' is no address and no host name"),
    ({"server": {"tls_certificate": "a\0", "tls_key": "k"}}, "server.tls_certificate: 'a\\x00' has characters"),
    ({"bodies": {"spool_dir": "a\0"}}, "bodies.spool_dir: 'a\\x00' has characters"),
    ({"auth": {"chain_endpoint": "wss://"}}, "auth.chain_endpoint: 'wss://' is no wss:// or https:// URL"),
    ({"auth": {"chain_endpoint": "wss://h/\u00e4"}}, "auth.chain_endpoint: 'wss://h/\u00e4' is no wss://"),
    ({"auth": {"min_stake_url": "http://h/\u00e4"}}, "auth.min_stake_url: 'http://h/\u00e4' is no http or https URL"),
    ({"auth": {"miner_hotkey": " "}}, "auth.miner_hotkey: Configuration missing 'auth.miner_hotkey'"),
    ({"server": {"cors_origins": ["null"]}}, "server.cors_origins: 'null' is no exact origin"),
    ({"routes": [{"path": "/jobs/*", "backend": "training"}]}, "path is '/jobs/*', which the proxy answers itself"),
    ({"routes": [{"path": "/check/all", "backend": "training"}]}, "path is '/check/all', which the proxy answers"),
    ({"answers": {"sign": True}}, "answers.hotkey_file: is not set"),
]


@pytest.mark.parametrize(("settings", "refusal"), WRONG, ids=lambda case: str(case)[:40])
def test_a_refusal_names_the_file_the_key_and_what_would_be_right(
    settings: dict[str, Any], refusal: str, tmp_path: Path
) -> None:
    merged = {name: ORIGINAL.get(name, {}) for name in ORIGINAL}
    for name, values in settings.items():
        merged[name] = {**merged.get(name, {}), **values} if isinstance(values, dict) else values
    with pytest.raises(ConfigError) as refused:
        load({}, written(tmp_path, merged))
    assert refusal in str(refused.value)
    assert "config.json" in str(refused.value)


def test_blanks_around_the_miners_hotkey_are_no_part_of_it(tmp_path: Path) -> None:
    document = {**ORIGINAL, "auth": {**ORIGINAL["auth"], "miner_hotkey": f" {BOB.ss58}\n"}}
    assert load({}, written(tmp_path, document)).settings.auth.miner_hotkey == BOB.ss58


def test_a_route_beside_the_proxys_own_paths_is_free(tmp_path: Path) -> None:
    routes = [{"path": path, "backend": "training"} for path in ("/jobsite/*", "/status/*", "/checks", "/*")]
    assert len(load({}, written(tmp_path, {**ORIGINAL, "routes": routes})).settings.routes) == 4


def test_all_problems_are_found_in_one_go(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        load({"PORT": "x", "ALLOWED_DELTA_MS": "-1"}, written(tmp_path, {"server": {"hots": 1}, "sever": {}}))
    assert len(refused.value.problems) == 4


@pytest.mark.parametrize("text", ["{", "[]", "\xff{}"])
def test_a_file_that_is_no_json_object_is_refused(text: str, tmp_path: Path) -> None:
    folder = written(tmp_path, {})
    (folder / "reverse_proxy" / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"Failed to parse configuration file|root must be a JSON object"):
        load({}, folder)


def test_what_should_be_looked_at_is_said(tmp_path: Path) -> None:
    settings = {
        **ORIGINAL,
        "services": {"training_server_url": "http://203.0.113.0:1/", "inference_server_url": "http://8.8.8.8"},
    }
    settings["auth"] = {
        **ORIGINAL["auth"],
        "schemes": ["epistula-v2", "x-epistula"],
        "chain_endpoint": "",
        "allowed_senders": [],
    }
    loaded = load({"VALIDATE_REQUESTS": "false"}, written(tmp_path, settings))
    said = "\n".join(cautions(loaded))
    for part in (
        "validators demand https",
        "shorter than 16 characters",
        "x-epistula accepts requests that name no receiver",
        "no request passes",
        "http://8.8.8.8 is a public address",
        "VALIDATE_REQUESTS: requests are always validated",
    ):
        assert part in said
    assert any("POST /train goes to training" in line for line in explain(loaded))
    assert not any("jobs run at once" in line for line in explain(loaded))


def test_jobs_are_explained_where_a_route_makes_them(tmp_path: Path) -> None:
    toml = '[[routes]]\npath = "/edit"\nbackend = "inference"\nanswer_after_s = 10\n'
    said = "\n".join(explain(load({}, written(tmp_path, ORIGINAL, toml=toml))))
    assert "a POST that takes over 10 s becomes a job" in said
    assert "64 jobs run at once" in said
    assert "1073741824 bytes in all" in said
