"""A release in a repository of its own: version, changelog, checksums, and a signature that verifies."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHANGELOG = "# Changelog\n\nWhat users notice.\n\n## Not released\n\nThe first version.\n"
ENVIRON = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env=ENVIRON, capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / "scripts").mkdir(parents=True)
    (folder / "engram").mkdir()
    (folder / "changes").mkdir()
    for name in ("release", "bump.py"):
        shutil.copy(ROOT / "scripts" / name, folder / "scripts" / name)
    (folder / "pyproject.toml").write_text('[project]\nname = "engram"\nversion = "0.1.0"\n')
    (folder / "engram" / "__init__.py").write_text('__version__ = "0.1.0"\n')
    (folder / "CHANGELOG.md").write_text(CHANGELOG)
    (folder / "changes" / "b.fix.md").write_text("Two\nlines.\n")
    (folder / "changes" / "a.feature.md").write_text("One.\n")
    (folder / ".gitignore").write_text("/dist/\n")
    (folder / "dist").mkdir()
    (folder / "dist" / "engram").write_text("a program")
    for command in (["init", "-q"], ["config", "user.name", "t"], ["config", "user.email", "t@t"], ["add", "-A"]):
        assert run(folder, "git", *command).returncode == 0
    assert run(folder, "git", "commit", "-qm", "all").returncode == 0
    return folder


def release(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["scripts/release", *arguments, "--date", "2026-12-01", "--no-build"]
    return subprocess.run(
        command, cwd=checkout, env={**ENVIRON, "PYTHON": sys.executable}, capture_output=True, text=True, check=False
    )


@pytest.mark.external
@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen (Debian: openssh-client)")
def test_a_release_has_its_version_its_changes_checksums_and_a_signature(checkout: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    run(tmp_path, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    done = release(checkout, "0.2.0", "--key", str(key))
    assert done.returncode == 0, done.stderr
    assert 'version = "0.2.0"' in (checkout / "pyproject.toml").read_text()
    assert (checkout / "engram" / "__init__.py").read_text() == '__version__ = "0.2.0"\n'
    changelog = (checkout / "CHANGELOG.md").read_text()
    assert (
        "## Not released\n\n## 0.2.0 (2026-12-01)\n\n### New\n\n- One.\n\n### Fixed\n\n- Two\n  lines.\n" in changelog
    )
    assert list((checkout / "changes").iterdir()) == []
    assert run(checkout, "git", "status", "--porcelain").stdout == ""
    assert run(checkout, "git", "log", "-1", "--format=%s").stdout == "release 0.2.0\n"
    assert run(checkout / "dist", "sha256sum", "-c", "SHA256SUMS").returncode == 0
    (tmp_path / "allowed").write_text(f"operator {key.with_suffix('.pub').read_text()}")
    verify = ["ssh-keygen", "-Y", "verify", "-n", "engram", "-f", str(tmp_path / "allowed"), "-I", "operator"]
    sums = (checkout / "dist" / "SHA256SUMS").read_bytes()
    signature = str(checkout / "dist" / "SHA256SUMS.sig")
    assert subprocess.run([*verify, "-s", signature], input=sums, capture_output=True, check=False).returncode == 0
    assert subprocess.run([*verify, "-s", signature], input=sums + b"x", capture_output=True, check=False).returncode


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name the version"),
        (("next",), "name the version"),
        (("0.0.9",), "0.0.9 is older than 0.1.0"),
        (("0.2.0", "--key", "/nowhere"), "cannot be read"),
    ],
)
def test_what_cannot_be_released_is_refused_and_changes_nothing(
    checkout: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = release(checkout, *arguments)
    assert done.returncode != 0
    assert said in done.stderr
    assert run(checkout, "git", "status", "--porcelain").stdout == ""


def test_a_checkout_with_changes_is_not_released(checkout: Path) -> None:
    (checkout / "CHANGELOG.md").write_text("mine")
    done = release(checkout, "0.2.0")
    assert (done.returncode, "commit them" in done.stderr) == (2, True)


def test_a_fragment_without_a_kind_stops_the_release(checkout: Path) -> None:
    (checkout / "changes" / "c.thing.md").write_text("What?")
    run(checkout, "git", "add", "-A")
    run(checkout, "git", "commit", "-qm", "c")
    done = release(checkout, "0.2.0")
    assert done.returncode != 0
    assert "a fragment ends with" in done.stderr


def test_a_release_that_cannot_be_built_leaves_the_checkout_as_it_was(checkout: Path) -> None:
    before = run(checkout, "git", "rev-parse", "HEAD").stdout
    command = ["scripts/release", "0.2.0", "--date", "2026-12-01"]
    environ = {**ENVIRON, "PYTHON": sys.executable, "PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, cwd=checkout, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "it failed; the checkout is as it was" in done.stderr
    assert run(checkout, "git", "rev-parse", "HEAD").stdout == before
    assert run(checkout, "git", "status", "--porcelain").stdout == ""
    assert (checkout / "changes" / "a.feature.md").exists()
