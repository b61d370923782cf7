"""What the code imports is declared, what is declared is locked, and nothing in the tree belongs to one machine."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from tests.house import sources

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OF_EXTRAS = {"langchain_core", "llama_index"}  # in .venv-adapters, which this test does not look into


def normal(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;]", name, maxsplit=1)[0]).lower()


def imported(*roots: str, named: str = "") -> Iterator[tuple[str, str]]:
    """Each top-level package imported under these folders, with the file; only of files that have `named` in them."""
    for file in sources.files(*roots):
        text = file.read_text()
        for node in ast.walk(ast.parse(text)) if named in text else ():
            if isinstance(node, ast.Import):
                yield from ((alias.name.partition(".")[0], str(file.relative_to(ROOT))) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0], str(file.relative_to(ROOT))


def declared() -> set[str]:
    """Of the gateway's own set, and of every extra that adds a part to it."""
    extras = PROJECT["optional-dependencies"]
    parts = [extras[name] for name in ("node", "chain", "gpu", "postgresql", "qdrant", "parquet")]
    return {normal(line) for lines in (PROJECT["dependencies"], *parts) for line in lines}


def test_every_package_that_is_imported_is_declared() -> None:
    """What only another package brings may be gone with that package's next version."""
    ours = {"actors", "config", "engram", "run"} | sys.stdlib_module_names | OF_EXTRAS
    of = metadata.packages_distributions()
    missing = {
        (name, file)
        for name, file in imported("actors", "config", "engram")
        if name not in ours and not {normal(each) for each in of.get(name, [name])} & declared()
    }
    assert missing == set()


@pytest.mark.parametrize("lock", ["run.txt", "dev.txt"])
def test_every_declared_package_is_locked(lock: str) -> None:
    locked = {
        normal(line) for line in re.findall(r"^\S+==\S+", (ROOT / "requirements" / lock).read_text(), re.MULTILINE)
    }
    extras = PROJECT["optional-dependencies"]
    both = ("node", "chain", "postgresql")
    names = both if lock == "run.txt" else (*both, "qdrant", "dev", "bench")
    wanted = [*PROJECT["dependencies"], *(line for name in names for line in extras[name])]
    assert [line for line in wanted if normal(line) not in locked] == []


def test_the_lock_of_npm_packages_names_no_address_and_hashes_everything() -> None:
    packages = json.loads((ROOT / "tests/node/package-lock.json").read_text())["packages"]
    fetched = {name: entry for name, entry in packages.items() if name.startswith("node_modules/")}
    assert fetched
    assert [name for name, entry in fetched.items() if "://" in entry.get("resolved", "")] == []
    assert [name for name, entry in fetched.items() if "integrity" not in entry and not entry.get("link")] == []


def test_no_file_names_a_folder_of_the_machine_it_was_written_on() -> None:
    """Examples use `~`, `/srv`, `/var/lib`; tests make their folders."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("no checkout by git here")
    of_a_machine = re.compile(r"(?<![\w.~/*}-])/(?:(?:work|root)/[\w.]|(?:home|tmp)/[a-z])")
    found = []
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if not name or not path.is_file() or path.suffix in {".gz", ".bin", ".parquet"}:
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if of_a_machine.search(line):
                found.append(f"{name}:{number}: {line.strip()[:120]}")
    assert found == []


def test_every_file_of_sqlite_is_opened_by_one_library() -> None:
    """A process that opened one by two libraries would not exclude itself: the kernel's locks belong to the process."""
    driver = {("pysqlite3", "engram/durable/driver.py"), ("sqlite3", "engram/durable/driver.py")}
    modules = imported("actors", "config", "engram", "tests", named="sqlite3")
    found = {each for each in modules if each[0] in {"sqlite3", "pysqlite3"}}
    assert found == driver


def test_every_area_stands_in_a_layer() -> None:
    """What import-linter finds in no layer, it holds to no arrow."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["name"].startswith("Arrows run one way")]
    named = {area for layer in layers for area in re.findall(r"engram\.(\w+)", layer)}
    areas = {path.parent.name for path in (ROOT / "engram").glob("*/__init__.py")}
    modules = {path.stem for path in (ROOT / "engram").glob("*.py")} - {"__init__"}
    assert areas | modules <= named
