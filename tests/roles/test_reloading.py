"""SIGHUP: what takes effect at once, what waits, and what is left alone."""

import logging
from collections.abc import Iterator

import msgspec
import pytest
import structlog

import config
from config.model import HttpSettings, LogSettings, Settings
from engram.http.listener import Listener
from engram.roles.reloading import Reloading, changed, in_force
from engram.telemetry import logs


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    handlers, level = logging.getLogger().handlers, logging.getLogger().level
    kept = structlog.get_config()
    yield
    structlog.configure(**kept)
    logging.getLogger().handlers, logging.getLogger().level = handlers, level


def with_(**changes: object) -> Settings:
    base = config.load("local", env_files=(), environ={}).settings
    return msgspec.structs.replace(base, **changes)


def loaded(settings: Settings) -> config.Loaded:
    return msgspec.structs.replace(config.load("local", env_files=(), environ={}), settings=settings)


class Hangup:
    """A process whose settings file is changed."""

    def __init__(self, before: Settings) -> None:
        self.settings: Settings | config.ConfigError = before
        self.listener = Listener("127.0.0.1", 0, before.http, 1.0)
        self.reload = Reloading(loaded(before), self._load, ["gateway"], lambda: [self.listener], json_logs=True)

    def _load(self) -> config.Loaded:
        if isinstance(self.settings, config.ConfigError):
            raise self.settings
        return loaded(self.settings)


def test_settings_that_need_no_restart_are_told_from_those_that_do() -> None:
    before = with_()
    after = with_(data_dir="other", log=LogSettings(level="DEBUG"), http=HttpSettings(trusted_proxies=("10.0.0.0/8",)))
    assert changed(before, after) == ["data_dir", "log.level", "http.trusted_proxies"]
    now = in_force(before, after)
    assert changed(before, now) == ["log.level", "http.trusted_proxies"]
    assert changed(now, after) == ["data_dir"]


def test_the_log_level_changes_while_the_process_runs(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("WARNING", json=True)
    process = Hangup(with_(log=LogSettings(level="WARNING")))
    structlog.get_logger("engram").info("too_soon")
    process.settings = with_(log=LogSettings(level="INFO"))
    process.reload()
    structlog.get_logger("engram").info("just_in_time")
    out = capsys.readouterr().err
    assert "too_soon" not in out
    assert "just_in_time" in out
    assert '"settings_reloaded"' in out


def test_what_waits_for_a_restart_is_said_at_every_hangup(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", json=True)
    process = Hangup(with_())
    process.settings = with_(data_dir="other")
    for _ in range(2):
        process.reload()
        assert '"keys":["data_dir"],"event":"settings_wait_for_restart"' in capsys.readouterr().err.replace(", ", ",")


def test_settings_that_are_wrong_change_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", json=True)
    process = Hangup(with_())
    process.settings = config.ConfigError([config.Problem("engram.toml", "log.level", "is 'LOUD'")])
    process.reload()
    assert "settings_kept" in capsys.readouterr().err
    process.settings = with_(gateway=msgspec.structs.replace(with_().gateway, host="0.0.0.0", auth_required=False))
    process.reload()
    assert "settings_kept" in capsys.readouterr().err
