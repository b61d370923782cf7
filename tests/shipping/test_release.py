"""A whole release of this checkout, in a clone of it: every form is built, runs, and is signed for."""

import hashlib
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VERSION = "99.1.0"
FORMS = {
    "engram",
    "engram-gateway",
    f"engram_{VERSION}_amd64.deb",
    "engram-image.tar",
    "engram-node-image.tar",
}
BILLS = {"engram.cdx.json", "engram-gateway.cdx.json", "engram-image.cdx.json", "engram-node-image.cdx.json"}

pytestmark = [pytest.mark.heavy, pytest.mark.external, pytest.mark.nightly, pytest.mark.xdist_group("binary")]


def run(folder: Path, *command: str, **environ: str) -> str:
    told = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, **environ}
    done = subprocess.run(command, cwd=folder, env=told, capture_output=True, text=True, check=False, timeout=5_000)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def test_a_release_has_every_form_which_all_name_its_version(tmp_path: Path) -> None:
    checkout, key = tmp_path / "checkout", tmp_path / "key"
    run(tmp_path, "git", "clone", "-q", "--shared", str(ROOT), str(checkout))
    run(checkout, "git", "config", "user.name", "operator")
    run(checkout, "git", "config", "user.email", "operator@localhost")
    shutil.copytree(ROOT / "phone/node_modules", checkout / "phone/node_modules", symlinks=True)
    (tmp_path / "phone-key").write_text(secrets.token_hex(32))
    run(tmp_path, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    told = {"PYTHON": sys.executable, "ENGRAM_RELEASE_KEY": str(tmp_path / "phone-key")}
    heads = run(ROOT, "git", "for-each-ref")
    run(checkout, "scripts/release", VERSION, "--date", "2026-12-01", "--key", str(key), **told)
    assert run(checkout, "git", "log", "-1", "--format=%s").strip() == f"release {VERSION}"
    assert run(checkout, "git", "status", "--porcelain") == ""
    assert not list((checkout / "changes").glob("*.md"))
    assert f"## {VERSION} (2026-12-01)\n\n### New\n" in (checkout / "CHANGELOG.md").read_text()
    assert run(ROOT, "git", "for-each-ref") == heads
    dist = checkout / "dist"
    assert {path.name for path in dist.iterdir()} == FORMS | BILLS | {"SHA256SUMS", "SHA256SUMS.sig"}
    run(dist, "sha256sum", "--strict", "-c", "SHA256SUMS")
    (tmp_path / "allowed").write_text(f"operator {key.with_suffix('.pub').read_text()}")
    verify = "ssh-keygen -Y verify -n engram -f ../../allowed -I operator -s SHA256SUMS.sig <SHA256SUMS"
    run(dist, "bash", "-c", verify)
    for name in ("engram", "engram-gateway"):
        environ = {"ENGRAM_UNPACK_DIR": str(tmp_path / "unpacked")}
        assert run(tmp_path, str(dist / name), "--version", **environ).strip() == VERSION
        run(tmp_path, str(dist / name), "doctor", "--self", **environ)
        bill = (dist / f"{name}.cdx.json").read_text()
        assert hashlib.sha256((dist / name).read_bytes()).hexdigest() in bill
    assert run(dist, "dpkg-deb", "-f", f"engram_{VERSION}_amd64.deb", "Version").strip() == VERSION
