"""A release in a repository of its own: version, changelog, checksums, and a signature that verifies."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHANGELOG = "# Changelog\n\nWhat users notice.\n\n## Not released\n\nThe first version.\n"
ENVIRON = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}

BUILDER = """#!/bin/sh
put() {{ mkdir -p "$(dirname "$1")" && echo built >"$1"; }}
case "$1 $2" in
scripts/bump.py*) exec {python} "$@" ;;
"-m shipping.binary") put "$3" ;;
"-m shipping.deb") put "$3" ;;
"-m shipping.gateway_image") put "$3/engram.tar" && put "$3/engram.cdx.json" ;;
"-m shipping") put "$3/engram-node.tar" && put "$3/engram-node.cdx.json" ;;
esac
{instead}
"""
"""Builds nothing, quickly."""
PHONE = "#!/bin/sh\n[ ! -e stale ]\n"
BUILT_BY_NPM = """#!/bin/sh
case $1 in
ci) mkdir -p node_modules ;;
run) mkdir -p ../engram/gateway/phone_built && echo {} >../engram/gateway/phone_built/files.json ;;
esac
"""


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
    (folder / "scripts" / "setup-phone").write_text(PHONE)
    (folder / "scripts" / "setup-phone").chmod(0o755)
    (folder / ".gitignore").write_text("/dist/\n/build/\n/stale\n")
    (folder / "dist").mkdir()
    (folder / "dist" / "engram-of-before").write_text("a program")
    for command in (["init", "-q"], ["config", "user.name", "t"], ["config", "user.email", "t@t"], ["add", "-A"]):
        assert run(folder, "git", *command).returncode == 0
    assert run(folder, "git", "commit", "-qm", "all").returncode == 0
    return folder


def release(checkout: Path, *arguments: str, instead: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """Release with a stand-in for what builds, which ends by doing `instead`."""
    builder, key = checkout.parent / "builder", checkout.parent / "release-key"
    builder.write_text(BUILDER.format(python=shlex.quote(sys.executable), instead=instead))
    builder.chmod(0o755)
    key.write_text("0" * 64)
    command = ["scripts/release", *arguments, "--date", "2026-12-01"]
    told = {**ENVIRON, "PYTHON": str(builder), "ENGRAM_RELEASE_KEY": str(key), **environ}
    return subprocess.run(command, cwd=checkout, env=told, capture_output=True, text=True, check=False)


def state(checkout: Path) -> tuple[str, str]:
    """The commit, and what differs from it."""
    return run(checkout, "git", "rev-parse", "HEAD").stdout, run(checkout, "git", "status", "--porcelain").stdout


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
    summed = run(checkout / "dist", "sha256sum", "-c", "SHA256SUMS")
    assert (summed.returncode, len(summed.stdout.splitlines())) == (0, 7)
    assert not (checkout / "dist" / "engram-of-before").exists()
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
        (("0.0.9",), "0.0.9 is not newer than 0.1.0"),
        (("0.1.0",), "0.1.0 is not newer than 0.1.0"),
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


@pytest.mark.parametrize(
    ("instead", "status"),
    [("kill -INT $PPID", 130), ("kill -TERM $PPID", 143), ("exit 3", 3)],
    ids=["Ctrl-C", "TERM", "a failure"],
)
def test_a_release_that_does_not_end_leaves_the_checkout_as_it_was(checkout: Path, instead: str, status: int) -> None:
    before = state(checkout)
    done = release(checkout, "0.2.0", instead=instead)
    assert (done.returncode, "the checkout is as it was" in done.stderr) == (status, True), done.stderr
    assert state(checkout) == before
    assert (checkout / "changes" / "a.feature.md").exists()
    assert not (checkout / "dist").exists()


@pytest.mark.parametrize("key", ["", "/nowhere"])
def test_a_release_whose_phone_app_nobody_signs_is_refused(checkout: Path, key: str) -> None:
    before = state(checkout)
    done = release(checkout, "0.2.0", ENGRAM_RELEASE_KEY=key)
    assert (done.returncode, "ENGRAM_RELEASE_KEY must name the file" in done.stderr) == (2, True)
    assert state(checkout) == before


def test_a_release_with_a_phone_app_of_before_is_refused(checkout: Path) -> None:
    before = state(checkout)
    (checkout / "stale").touch()
    assert release(checkout, "0.2.0").returncode != 0
    assert state(checkout) == before


def test_the_phone_app_that_is_built_is_known_by_its_sources_and_its_key(tmp_path: Path) -> None:
    phone, tools = tmp_path / "phone", tmp_path / "tools"
    for folder in (tmp_path / "scripts", phone / "build", phone / "public", phone / "src", tools):
        folder.mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "setup-phone", tmp_path / "scripts" / "setup-phone")
    names = "package.json package-lock.json vite.config.ts svelte.config.js tsconfig.json index.html ops.html"
    for name in (*names.split(), "build/a", "public/b", "src/c"):
        (phone / name).write_text(name)
    for name, text in {"node": "#!/bin/sh\n", "npm": BUILT_BY_NPM}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (tmp_path / "key").write_text("0" * 64)
    signed = {**ENVIRON, "PATH": f"{tools}:{ENVIRON['PATH']}", "ENGRAM_RELEASE_KEY": str(tmp_path / "key")}

    def asked(*arguments: str, **environ: str) -> int:
        told = {**signed, **environ}
        return subprocess.run(["scripts/setup-phone", *arguments], cwd=tmp_path, env=told, check=False).returncode

    assert asked("--check") == 1
    assert (asked(), asked("--check")) == (0, 0)
    assert asked("--check", ENGRAM_RELEASE_KEY="") == 1
    (phone / "src/c").write_text("changed")
    assert asked("--check") == 1
