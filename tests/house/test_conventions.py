"""The rules of the test run itself: samples repeat, and skips are failures where they must be."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from config.keys import KEYS
from engram.telemetry import logs
from engram.telemetry.metrics import TABLE
from tests.house import setting_reads, sources
from tests.sampling import NIGHTLY, sample

ROOT = Path(__file__).parents[2]
SKIPPING = """
import pytest

@pytest.mark.skipif(True, reason="no browser on this machine")
def test_a_tool_is_missing() -> None: ...

def test_found_out_on_the_way() -> None:
    pytest.skip("needs the folder ../shared")

@pytest.mark.xfail(reason="known", strict=True)
def test_known() -> None:
    raise AssertionError
"""


def outcome(folder: Path, **variables: str) -> str:
    """Pytest's closing line for SKIPPING."""
    (folder / "test_skipping.py").write_text(SKIPPING)
    options = ["-q", "-p", "tests.conftest", "-p", "no:cacheprovider", "--rootdir", str(folder), "-c", os.devnull]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(folder)],
        cwd=ROOT,
        env={**os.environ, "ENGRAM_NO_SKIPS": "0", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    return re.sub(r" in .*", "", done.stdout.strip().splitlines()[-1])


def test_a_missing_tool_is_a_skip_on_a_machine_that_lacks_it(tmp_path: Path) -> None:
    assert outcome(tmp_path) == "2 skipped, 1 xfailed"


def test_a_missing_tool_is_a_failure_in_continuous_integration(tmp_path: Path) -> None:
    absent, present = tmp_path / "absent", tmp_path
    assert outcome(tmp_path, ENGRAM_NO_SKIPS="1", ENGRAM_SHARED=str(absent)) == "1 skipped, 1 xfailed, 1 error"
    assert outcome(tmp_path, ENGRAM_NO_SKIPS="1", ENGRAM_SHARED=str(present)) == "1 failed, 1 xfailed, 1 error"


def test_heavy_tests_are_left_out_unless_they_are_named() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", "tests/browser"]
    assert (
        subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode
        == pytest.ExitCode.NO_TESTS_COLLECTED
    )
    only_heavy = subprocess.run([*command, "-m", "heavy"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "::test_" in only_heavy.stdout


@pytest.mark.xdist_group("house")
def test_tests_of_a_group_keep_to_one_worker(request: pytest.FixtureRequest) -> None:
    """By the name that pytest-xdist gives them; without it they are dealt out like all others."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        assert request.node.nodeid.endswith("@house")


def test_a_sample_is_the_same_for_the_same_seed() -> None:
    cases = list(range(100))
    assert sample("a", cases, 5) == sample("a", cases, 5)
    assert len(sample("a", cases, 5)) == (100 if NIGHTLY else 5)
    assert sample("a", cases, 200) == cases


def test_locks_name_no_host_and_hash_everything() -> None:
    for lock in (ROOT / "requirements").glob("*.txt"):
        text = lock.read_text()
        assert "://" not in text
        pins = re.findall(r"^[a-z0-9-]+==\S+(?: ; [^\n]+)? \\\n    --hash=sha256:", text, re.MULTILINE)
        assert len(pins) == len(re.findall(r"^[^\s#]", text, re.MULTILINE))
        assert "torch" not in {pin.partition("==")[0] for pin in pins}


def test_what_is_run_is_pinned_alike_in_both_locks() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^\S+==\S+", (ROOT / "requirements" / name).read_text(), re.MULTILINE))

    assert pins("run.txt") <= pins("dev.txt")


def product_code(*but: str) -> list[str]:
    files = [ROOT / "run.py", *(ROOT / "config").rglob("*.py"), *(ROOT / "engram").rglob("*.py")]
    return [file.read_text() for file in files if str(file.relative_to(ROOT)) not in but]


def test_every_metric_is_kept_by_somebody() -> None:
    kept = set(re.findall(r"metrics\.(\w+)", "\n".join(product_code("engram/telemetry/metrics.py"))))
    assert [row.attribute for row in TABLE if row.attribute not in kept] == []


def test_every_setting_is_read_in_its_section() -> None:
    product = [ROOT / "run.py", ROOT / "config" / "model.py", *(ROOT / "engram").rglob("*.py")]
    types = [file.read_text() for file in (ROOT / "config").rglob("*.py")]
    assert set(KEYS) - setting_reads.reads((file.read_text() for file in product), types) == set()


def test_a_setting_is_read_where_its_section_is_known() -> None:
    code = """
class Reader:
    def __init__(self, settings: Settings, shop: Shop) -> None:
        self._stats = settings.stats
        self._shop = shop
    def read(self, other: Request) -> object:
        hosts = [at.host for at in (self._shop.settings().ops,)]
        return self._stats.jitter, other.port, other.gateway.port, hosts
class Shop:
    def settings(self) -> Settings: ...
"""
    assert setting_reads.reads([code]) == {"stats", "ops", "stats.jitter", "ops.host"}


def logger(called: ast.expr) -> str:
    """The name that a chain of attributes and calls begins with."""
    while isinstance(called, ast.Attribute | ast.Call):
        called = called.value if isinstance(called, ast.Attribute) else called.func
    return called.id if isinstance(called, ast.Name) else ""


def test_no_log_line_names_a_fact_as_if_it_were_a_secret() -> None:
    """`payment=<id>` would be written as [redacted], and the operator could follow nothing."""
    names = set()
    for tree in sources.trees(code for code in product_code() if "_log." in code):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and logger(node.func) == "_log":
                names |= {keyword.arg for keyword in node.keywords if keyword.arg}
    assert names
    assert [name for name in names if logs.redact(None, "", {name: "x"})[name] == logs.REDACTED] == []
