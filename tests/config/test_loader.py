"""Settings come from their sources in order, and what cannot be read is refused with what would be right."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import config
from config import ConfigError, Origin, Settings
from config.keys import KEYS

pytestmark = pytest.mark.rules

NO_FILES: tuple[str, ...] = ()


def load(
    profile: str | None = None,
    *,
    files: tuple[Path, ...] = (),
    environ: dict[str, str] | None = None,
    flags: dict[str, str | float | None] | None = None,
    env_files: tuple[Path, ...] = (),
) -> config.Loaded:
    return config.load(profile, files, environ or {}, flags, env_files)


def problems(caught: pytest.ExceptionInfo[ConfigError]) -> list[str]:
    return [str(problem) for problem in caught.value.problems]


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


class TestOrder:
    def test_without_anything_the_profile_is_local_and_takes_play_money(self) -> None:
        loaded = load()
        assert loaded.profile == loaded.settings.environment == "local"
        assert loaded.settings.payments.network == "eip155:31337"
        assert loaded.origins["payments.network"] == Origin("profile", "local")
        assert loaded.origins["gateway.port"] == Origin("default")

    def test_a_later_source_wins(self, tmp_path: Path) -> None:
        first = written(tmp_path, "a.toml", "[gateway]\nport = 1\n")
        second = written(tmp_path, "b.toml", "[gateway]\nport = 2\n")
        env_file = written(tmp_path, ".env", "GATEWAY_PORT=3\n")
        miner_file = written(tmp_path, ".env.miner", "GATEWAY_PORT=4\n")
        steps: list[tuple[config.Loaded, int, str]] = [
            (load(files=(first,)), 1, f"file {first}"),
            (load(files=(first, second)), 2, f"file {second}"),
            (load(files=(second,), env_files=(env_file,)), 3, f"env file {env_file} GATEWAY_PORT"),
            (load(env_files=(env_file, miner_file)), 4, f"env file {miner_file} GATEWAY_PORT"),
            (load(env_files=(env_file,), environ={"GATEWAY_PORT": "5"}), 5, "environment GATEWAY_PORT"),
            (load(environ={"GATEWAY_PORT": "5"}, flags={"gateway.port": "6"}), 6, "flag gateway.port"),
        ]
        for loaded, port, origin in steps:
            assert loaded.settings.gateway.port == port
            assert str(loaded.origins["gateway.port"]) == origin

    def test_a_flag_that_is_not_given_changes_nothing(self) -> None:
        assert load(flags={"gateway.port": None}).settings.gateway.port == 9000

    def test_an_empty_variable_counts_as_not_set(self) -> None:
        assert load(environ={"GATEWAY_PORT": "", "ENGRAM_ENV": ""}).settings.gateway.port == 9000

    @pytest.mark.parametrize(
        ("flag", "variable", "expected"),
        [
            (None, None, "local"),
            (None, "dev", "local"),
            (None, "testnet", "testnet"),
            ("mainnet", "testnet", "mainnet"),
            ("local", "mainnet", "local"),
        ],
    )
    def test_the_flag_names_the_profile_else_the_variable(
        self, flag: str | None, variable: str | None, expected: str
    ) -> None:
        assert load(flag, environ={"ENGRAM_ENV": variable} if variable else {}).profile == expected

    def test_an_env_file_names_the_profile_too(self, tmp_path: Path) -> None:
        assert load(env_files=(written(tmp_path, ".env", "ENGRAM_ENV=testnet"),)).profile == "testnet"

    def test_a_command_that_is_given_a_services_settings_reads_the_services_variables_too(self, tmp_path: Path) -> None:
        settings = written(tmp_path, "engram.toml", 'data_dir = "/var/lib/engram"\n')
        assert load(files=(settings,)).profile == "local"
        variables = written(tmp_path, "environment", "# of the service\nENGRAM_ENV=testnet\nGATEWAY_PORT=9100\n")
        loaded = load(files=(settings, settings))
        assert (loaded.profile, loaded.settings.gateway.port) == ("testnet", 9_100)
        assert loaded.origins["gateway.port"] == Origin("env file", f"{variables} GATEWAY_PORT")
        assert load(files=(settings,), environ={"ENGRAM_ENV": "mainnet"}).profile == "mainnet"
        assert load(files=(settings,), environ={"STATE_DIRECTORY": "/var/lib/engram"}).profile == "local"

    def test_missing_env_files_are_no_error(self, tmp_path: Path) -> None:
        missing = load(env_files=(tmp_path / ".env", tmp_path / ".env.miner"))
        assert (missing.settings, missing.origins) == (load().settings, load().origins)


class TestVariables:
    def test_each_variable_of_the_seed_reaches_its_setting(self) -> None:
        environ = {
            "X402_RECIPIENT_ADDRESS": "0x" + "1" * 40,
            "X402_FACILITATOR_URL": "https://x402.example",
            "X402_NETWORK": "base",
            "CLOUD_PRICE_PER_HOUR_USD": "0.25",
            "AKASH_OWNER_ADDRESS": "akash1owner",
            "AKASH_NODE_URL": "https://akash.example",
            "AKASH_CHAIN_ID": "akashnet-9",
            "GATEWAY_PORT": "9100",
            "GATEWAY_AUTH_REQUIRED": "0",
            "ENGRAM_MINER_IMAGE": "miner:1",
            "REQUIRE_HOTKEY_SIG": "true",
            "LOG_LEVEL": "debug",
        }
        settings = load(environ=environ).settings
        assert settings.payments.recipient == "0x" + "1" * 40
        assert settings.payments.facilitator_url == "https://x402.example"
        assert settings.payments.network == "base"
        assert settings.pricing.lite_usd_per_hour == 0.25
        assert settings.akash.owner_address == "akash1owner"
        assert settings.akash.node_url == "https://akash.example"
        assert settings.akash.chain_id == "akashnet-9"
        assert settings.gateway.port == 9100
        assert settings.gateway.auth_required is False
        assert settings.provisioning.miner_image == "miner:1"
        assert settings.miner.require_signature is True
        assert settings.log.level == "DEBUG"

    @pytest.mark.parametrize("network", ["base", "eip155:8453", "base-sepolia", "eip155:84532", "eip155:31337"])
    def test_networks_go_by_both_names(self, network: str) -> None:
        assert load(environ={"X402_NETWORK": network}).settings.payments.network == network

    def test_a_network_that_cannot_be_taken_is_refused_by_name(self) -> None:
        with pytest.raises(ConfigError) as caught:
            load(environ={"X402_NETWORK": "solana"})
        (problem,) = problems(caught)
        assert problem.startswith("environment X402_NETWORK: X402_NETWORK: ")
        assert "'solana'" in problem
        assert "base-sepolia" in problem

    def test_other_variables_of_the_process_are_left_alone(self) -> None:
        loaded = load(environ={"PATH": "/bin", "ENGRAM_TEST_SEED": "1", "GATEWAY_SERVICE_HOST": "10.0.0.1"})
        assert (loaded.settings, loaded.origins) == (load().settings, load().origins)


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "key", "right"),
        [
            ("[gatway]\nport = 1", "gatway", "did you mean 'gateway'"),
            ("[gateway]\nprot = 1", "gateway.prot", "did you mean 'port'"),
            ("[gateway]\ndrain_s = 1", "gateway.drain_s", "did you mean 'shutdown.drain_s'"),
            ("datadir = 'x'", "datadir", "did you mean 'data_dir'"),
            ("gateway = 1", "gateway", "[gateway]"),
            ("[gateway]\nport = 'x'", "gateway.port", "'x' is not a whole number from 0 to 65535"),
            ("[gateway]\nport = 70000", "gateway.port", "70000 is not a whole number from 0 to 65535"),
            ("[gateway]\nport = true", "gateway.port", "True is not a whole number"),
            ("[gateway.port]\nx = 1", "gateway.port", "a table is not a whole number"),
            ("[stats]\njitter = 1", "stats.jitter", "a number from 0 to less than 1"),
            ("[shutdown]\nnodes = 'kept'", "shutdown.nodes", "one of keep, stop"),
            ("[shutdown]\ndrain_s = 0", "shutdown.drain_s", "a number greater than 0"),
            ("[http]\ncors_origins = '*'", "http.cors_origins", "a list, each text"),
            ("[http]\nmax_headers = 0", "http.max_headers", "a whole number of at least 1"),
            ("[log]\nlevel = 'LOUD'", "log.level", "one of DEBUG, INFO, WARNING, ERROR"),
            ("[gateway]\nauth_required = 1", "gateway.auth_required", "true or false"),
            ("[payments]\nnetwork = 'avalanche'", "payments.network", "eip155:8453"),
            ("[http]\ntrusted_proxies = ['10.0.0.1/8']", "http.trusted_proxies", "such as 10.0.0.0/8"),
            (
                "[chain]\nendpoints = ['wss://me:pw@rpc.example']",
                "chain.endpoints",
                "'wss://***@rpc.example' is not an",
            ),
            ("environment = 'mainnet'", "environment", "start with --profile mainnet or ENGRAM_ENV=mainnet"),
            ("[gateway", "", "is not TOML"),
            ("x = " + "[" * 5_000, "", "nested too deeply"),
            ("#" * 2_000_000, "", "is larger than"),
        ],
    )
    def test_a_file_is_refused_with_its_name_the_key_and_what_would_be_right(
        self, tmp_path: Path, text: str, key: str, right: str
    ) -> None:
        path = written(tmp_path, "engram.toml", text)
        with pytest.raises(ConfigError) as caught:
            load(files=(path,))
        (problem,) = caught.value.problems
        assert problem.where == f"file {path}"
        assert problem.key == key
        assert right in problem.message

    def test_all_problems_are_told_at_once(self, tmp_path: Path) -> None:
        path = written(tmp_path, "engram.toml", "[gateway]\nport = 'x'\nprot = 1\n")
        with pytest.raises(ConfigError) as caught:
            load("mainet", files=(path,), environ={"CLOUD_PRICE_PER_HOUR_USD": "-1"}, flags={"gateway.prt": "1"})
        assert len(caught.value.problems) == 5
        assert len(str(caught.value).splitlines()) == 5

    def test_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="there is no such file"):
            load(files=(tmp_path / "engram.toml",))

    def test_a_device_without_end_is_not_read_to_its_end(self) -> None:
        with pytest.raises(ConfigError, match="is larger than"):
            load(files=(Path("/dev/zero"),), env_files=())

    def test_a_folder_and_a_file_that_is_no_text_are_refused(self, tmp_path: Path) -> None:
        binary = tmp_path / "x.toml"
        binary.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ConfigError) as caught:
            load(files=(tmp_path, binary))
        assert ["cannot be read" in problem for problem in problems(caught)] == [True, True]

    @pytest.mark.parametrize(
        ("name", "value", "right"),
        [
            ("GATEWAY_PORT", "tcp://10.0.0.1:80", "a whole number from 0 to 65535"),
            ("GATEWAY_AUTH_REQUIRED", "perhaps", "true or false"),
            ("CLOUD_PRICE_PER_HOUR_USD", "0", "a number greater than 0"),
            ("CLOUD_PRICE_PER_HOUR_USD", "nan", "a number greater than 0"),
            ("CLOUD_PRICE_PER_HOUR_USD", "inf", "a number greater than 0"),
            ("LOG_LEVEL", "loud", "one of DEBUG, INFO, WARNING, ERROR"),
            ("ENGRAM_ENV", "mainnnet", "did you mean 'mainnet'"),
        ],
    )
    def test_a_bad_variable_is_refused_by_name(self, name: str, value: str, right: str) -> None:
        with pytest.raises(ConfigError) as caught:
            load(environ={name: value})
        (problem,) = caught.value.problems
        assert problem.where == f"environment {name}"
        assert problem.key == name
        assert right in problem.message

    def test_a_misspelt_variable_in_an_env_file_is_refused(self, tmp_path: Path) -> None:
        path = written(tmp_path, ".env", "X402_RECIPIENT_ADRESS=0x1\nGATEWAY_PROT=1\nPOSTGRES_PASSWORD=x\nnonsense\n")
        with pytest.raises(ConfigError) as caught:
            load(env_files=(path,))
        unknown = "there is no such variable; did you mean"
        assert problems(caught) == [
            f"env file {path}: line 4: is not NAME=value",
            f"env file {path}: X402_RECIPIENT_ADRESS: {unknown} 'X402_RECIPIENT_ADDRESS'?",
            f"env file {path}: GATEWAY_PROT: {unknown} 'GATEWAY_PORT'?",
        ]

    @pytest.mark.parametrize(
        ("key", "value", "right"),
        [
            ("gateway.prt", "1", "did you mean 'gateway.port'"),
            ("gateway.port", "x", "'x' is not a whole number"),
            ("http.max_headers", "0", "at least 1"),
        ],
    )
    def test_a_bad_flag_is_refused(self, key: str, value: str, right: str) -> None:
        with pytest.raises(ConfigError) as caught:
            load(flags={key: value})
        (problem,) = caught.value.problems
        assert problem.where == f"flag {key}"
        assert right in problem.message


def test_lists_are_separated_by_commas_on_the_command_line() -> None:
    settings = load(
        flags={"http.cors_origins": "https://a.example, https://b.example", "chain.netuids": "1,450"}
    ).settings
    assert settings.http.cors_origins == ("https://a.example", "https://b.example")
    assert settings.chain.netuids == (1, 450)


def test_every_setting_has_an_origin() -> None:
    loaded = load()
    assert set(loaded.origins) == set(KEYS)


def test_a_list_may_be_written_as_json_too() -> None:
    settings = load(flags={"http.cors_origins": '["https://a.example", "*"]', "chain.netuids": "[1, 450]"}).settings
    assert settings.http.cors_origins == ("https://a.example", "*")
    assert settings.chain.netuids == (1, 450)
    with pytest.raises(ConfigError, match="neither a JSON list nor parts between commas"):
        load(flags={"http.cors_origins": '["https://a.example"'})


@pytest.mark.parametrize(
    ("written_as", "right"),
    [
        ("https://App.example", "write 'https://app.example'"),
        ("https://app.example:443", "write 'https://app.example'"),
        ("https://app.example/shop", "write 'https://app.example'"),
        ("https://münchen.example", "write 'https://xn--mnchen-3ya.example'"),
        ("app.example", "is no origin"),
        ("https://", "is no origin"),
        ("https://[::1", "is no origin"),
        ("https://a b", "is no origin"),
        ("https://app.example:0x50", "is no origin"),
    ],
)
def test_an_origin_that_no_browser_would_send_is_refused(written_as: str, right: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(right)):
        load(flags={"http.cors_origins": written_as})


@pytest.mark.parametrize(
    "origin",
    ["*", "null", "https://app.example", "https://app.example/", "http://[::1]:8080", "capacitor://localhost"],
)
def test_an_origin_as_browsers_send_it_is_taken(origin: str) -> None:
    assert load(flags={"http.cors_origins": origin}).settings.http.cors_origins == (origin,)


def test_a_misspelt_variable_of_the_process_is_a_warning_that_names_the_right_one() -> None:
    loaded = load(
        environ={
            "X402_NETWRK": "base",
            "GATEWAY_PORT": "1",
            "CLOUD_SDK_VERSION": "1",
            "GATEWAY_PROT": "1",
            "PATH": "/bin",
            "ENGRAM_EVN": "mainnet",
        }
    )
    assert [(problem.key, problem.message) for problem in loaded.unread] == [
        ("ENGRAM_EVN", "is read by nothing here; did you mean 'ENGRAM_ENV'?"),
        ("GATEWAY_PROT", "is read by nothing here; did you mean 'GATEWAY_PORT'?"),
        ("X402_NETWRK", "is read by nothing here; did you mean 'X402_NETWORK'?"),
    ]
    assert loaded.settings.payments.network == "eip155:31337"


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without the privileges of root, where the tests have them."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(was)


def test_env_files_of_a_working_directory_that_is_closed_to_this_user_are_not_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sudo -u engram engram …` in the home of an operator."""
    (tmp_path / ".env").write_text("LOG_LEVEL=DEBUG\n")
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0)
    with as_nobody():
        settings = config.load(environ={}).settings
    tmp_path.chmod(0o755)
    assert settings.log.level == Settings().log.level
    (tmp_path / ".env").chmod(0)
    with as_nobody(), pytest.raises(ConfigError, match=r"\.env: cannot be read"):
        config.load(environ={})
