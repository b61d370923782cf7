"""What every test shares: the seed, Hypothesis profiles, and the rule about skips in continuous integration.

- ENGRAM_TEST_SEED names the seed of sampled tests and of Hypothesis; it is printed in the header of each run.
- ENGRAM_NIGHTLY=1 runs every kill point and more examples.
- ENGRAM_NO_SKIPS=1 turns a skip into a failure, except for what cannot be installed: the folder ../shared where
  it is absent, and the right to mount a disk (`.ci/run` takes it where the machine lets it).
"""

import logging
import os
import signal
from collections.abc import Generator, Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from engram.telemetry import logs
from tests.sampling import NIGHTLY, SEED
from tests.shared import NO_MOUNT, SHARED

settings.register_profile(
    "default",
    max_examples=100,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("nightly", settings.get_profile("default"), max_examples=2_000)
settings.load_profile("nightly" if NIGHTLY else "default")

# What is started in the background ignores Ctrl-C and hands that on; the programs under test must not get it from here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

NO_SKIPS = os.environ.get("ENGRAM_NO_SKIPS") == "1"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if getattr(config.option, "hypothesis_seed", None) is None:
        config.option.hypothesis_seed = str(SEED)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A program that a test runs in this process configures its logs; the next test must not inherit them."""
    root, requests, structured = logging.getLogger(), logs._requests, structlog.get_config()
    handlers, level, held_by, wanted = root.handlers[:], root.level, requests.held_by, requests.wanted
    yield
    root.handlers = handlers
    root.setLevel(level)
    requests.held_by, requests.wanted = held_by, wanted
    structlog.configure(**structured)


def pytest_report_header(config: pytest.Config) -> str:
    nightly = " (nightly)" if NIGHTLY else ""
    return f"seed of samples and Hypothesis: {SEED}{nightly}; repeat with ENGRAM_TEST_SEED={SEED}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"seed: {SEED} (ENGRAM_TEST_SEED={SEED} repeats this run)")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `serial` never run side by side with one another."""
    for item in items:
        if item.get_closest_marker("serial"):
            item.add_marker(pytest.mark.xdist_group("serial"))


def _forbidden(reason: str) -> bool:
    return NO_SKIPS and not ("shared" in reason and not SHARED.is_dir()) and reason != f"Skipped: {NO_MOUNT}"


def _reason(longrepr: object) -> str:
    return str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = _reason(report.longrepr)
        if _forbidden(reason):
            report.outcome = "failed"
            report.longrepr = f"skips are failures here (ENGRAM_NO_SKIPS=1): {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped:
        reason = _reason(report.longrepr)
        if _forbidden(reason):
            report.outcome = "failed"
            report.longrepr = f"skips are failures here (ENGRAM_NO_SKIPS=1): {reason}"
    return report
