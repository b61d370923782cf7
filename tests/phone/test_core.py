"""The app's own tests, which need Node and no browser."""

import re
import subprocess
from pathlib import Path

import pytest

from engram.gateway import phone
from tests.phone.browser import BUILT, FOLDER

VITEST = FOLDER / "node_modules" / ".bin" / "vitest"


@pytest.mark.external
@pytest.mark.skipif(not VITEST.exists(), reason="needs Node: run make phone")
def test_the_apps_own_tests_pass() -> None:
    done = subprocess.run([VITEST, "run", "--reporter=dot"], cwd=FOLDER, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
    assert "passed" in done.stdout


def test_a_change_of_any_file_that_the_app_is_made_of_builds_it_again() -> None:
    script = (Path(__file__).parents[2] / "scripts" / "setup-phone").read_text()
    [stamped] = [line for line in script.splitlines() if line.startswith("sources=$(cat")]
    made_of = [each.name for each in FOLDER.iterdir() if each.is_file() and not each.name.startswith(".")]
    assert "ops.html" in made_of
    assert [name for name in made_of if f" {name} " not in stamped] == []


FIRST_KB = 60.0
LATER_KB = 30.0


def _compressed(name: str) -> float:
    return (phone.FOLDER / f"{name}.br").stat().st_size / 1_000


def _parts(name: str) -> set[str]:
    """The scripts and styles that come with a file, itself included: what it imports at once, and so on."""
    found, waiting = set[str](), {name}
    while waiting:
        found.add(each := waiting.pop())
        content = (phone.FOLDER / each).read_text()
        # Rolldown writes `from"./a.js"` and `import"./a.js"` for what is needed at once, `import("./a.js")` for later.
        needed = set(re.findall(r"""(?:from|import)\s*["'`]\./([\w.-]+\.js)["'`]""", content))
        needed |= set(re.findall(r"""(?:src|href)="/app/([\w.-]+\.(?:js|css))\"""", content))
        waiting |= needed - found
    return found


@pytest.mark.skipif(not BUILT, reason="needs the built app: make phone")
def test_the_first_load_and_each_later_screen_are_small() -> None:
    first = _parts("index.html")
    assert any(name.startswith("disclose-version") or name.endswith(".css") for name in first), first
    assert sum(map(_compressed, first)) <= FIRST_KB
    # What signs is there before a screen is opened: the words were made, or the identity was opened, with it.
    [*signing] = [each.name for each in phone.FOLDER.glob("keys-*.js")]
    first = first.union(*map(_parts, signing))
    sizes = {}
    for script in phone.FOLDER.glob("*.js"):
        later = _parts(script.name) - first
        if script.name != phone.WORKER and not script.name.startswith("ops"):
            sizes[script.name] = sum(map(_compressed, later))
    assert len(sizes) > 10
    assert {name: kb for name, kb in sizes.items() if kb > LATER_KB} == {}
