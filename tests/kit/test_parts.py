"""The kit's small parts: limits, logs, settings."""

from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from config.errors import ConfigError
from engram.hotkeys import Keypair
from engram.kit import Caller, RateLimiter, log_request
from engram.kit.settings import load

pytestmark = pytest.mark.rules

HOTKEY = Keypair.generate().ss58


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_window_slides_and_refused_requests_are_not_counted() -> None:
    at = Time()
    limiter = RateLimiter(2, 10, now=at)
    answers = []
    for at.now in (0.0, 5.0, 9.9, 10.0, 10.1, 15.0):
        answers.append(limiter.is_allowed("a"))
    assert answers == [True, True, False, True, False, True]
    assert limiter.is_allowed("b")


def test_callers_for_whom_there_is_no_room_are_refused_and_none_is_forgotten_early() -> None:
    at = Time()
    limiter = RateLimiter(1, 10, max_callers=2, now=at)
    assert [limiter.is_allowed(caller) for caller in ("a", "b", "c", "a")] == [True, True, False, False]
    at.now = 10.0
    assert [limiter.is_allowed(caller) for caller in ("c", "a", "b")] == [True, True, False]


@pytest.mark.parametrize("numbers", [(0, 1), (1, 0), (-1, 1)])
def test_a_limit_of_nothing_is_refused(numbers: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        RateLimiter(*numbers)


async def test_a_request_is_logged_with_the_start_of_the_proven_key_and_its_seconds(autojump_clock: object) -> None:
    @log_request
    async def inference(caller: Caller, seconds: float) -> str:
        await trio.sleep(seconds)
        if seconds > 1:
            raise ValueError("too long")
        return "done"

    with capture_logs() as logs:
        assert await inference(Caller(HOTKEY, "proxy"), 0.25) == "done"
        with pytest.raises(ValueError, match="too long"):
            await inference(Caller(HOTKEY, "proxy"), 1.5)
    completed, failed = logs
    assert (completed["event"], completed["caller"], completed["seconds"]) == ("request_completed", HOTKEY[:8], 0.25)
    assert (failed["event"], failed["error"]) == ("request_failed", "ValueError('too long')")


def _written(folder: Path, text: str) -> Path:
    path = folder / "miner.toml"
    path.write_text(text)
    return path


def test_options_win_over_the_file(tmp_path: Path) -> None:
    path = _written(tmp_path, f'[miner]\nhotkey = "{HOTKEY}"\n[serve]\nport = 9000\n')
    assert load(path).serve.port == 9000
    assert load(path, port=0).serve.port == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[miner]\nhotkey = ''", "write the SS58 address of your registered hotkey here"),
        ("[miner]\nhotkey = '<your-hotkey>'", "write the SS58 address"),
        ("[miner]\nhotkey = '5GrwvaEF'", "'5GrwvaEF' is no SS58 address"),
        ("[miner]\nhotkey = '{hotkey}'\n[serve]\nport = 70000", "port"),
        ("[miner]\nhotkey = '{hotkey}'\n[serve]\nprot = 1", "prot"),
        ("[miner]\nhotkey = '{hotkey}'\n[serve]\nhost = '0.0.0.0'", "anyone could say who calls"),
        ("[miner]\nhotkey = '{hotkey}'\n[callers]\nallowed = ['x']", "callers.allowed"),
        ("[miner]\nhotkey = '{hotkey}'\n[callers]\nchain_endpoint = 'finney'", "'finney' is no URL, such as wss://"),
        ("[miner]\nhotkey = '{hotkey}'\n[callers]\nschemes = ['x']", "'x' is none of epistula-v2"),
        ("[miner]\nhotkey = '{hotkey}'\n[offer]\nattestation = 'command'", "name the program"),
        ("[miner", "it is not TOML"),
        ("", "miner"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_would_be_right(tmp_path: Path, text: str, words: str) -> None:
    path = _written(tmp_path, text.replace("{hotkey}", HOTKEY))
    with pytest.raises(ConfigError) as refused:
        load(path)
    assert words in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "miner.toml")
