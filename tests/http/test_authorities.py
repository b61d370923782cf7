"""Whom this machine trusts: its own authorities, or those that the environment names."""

import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from engram.http import authorities
from engram.http.authorities import machine_tls
from tests.http.test_tls import pair

__all__ = ["pair"]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


def test_the_machines_authorities_are_trusted_and_names_are_checked() -> None:
    made, usual = machine_tls(), ssl.create_default_context()
    assert made.cert_store_stats() == usual.cert_store_stats()
    assert (made.verify_mode, made.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_a_file_that_the_environment_names_is_trusted_alone(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(pair[0]))
    assert machine_tls().cert_store_stats()["x509"] == 1
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    with pytest.raises(OSError, match="No such file"):
        machine_tls()


@pytest.mark.parametrize("is_there", [True, False])
def test_a_python_that_was_built_elsewhere_finds_them_where_systems_keep_them_or_trusts_nobody(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_there: bool
) -> None:
    elsewhere = ssl.DefaultVerifyPaths("", str(tmp_path), "", "/none", "", "/none")
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: elsewhere)
    monkeypatch.setattr(authorities, "_FILES", ("/none", str(pair[0]) if is_there else "/none either"))
    made = machine_tls()
    assert made.cert_store_stats()["x509"] == is_there
    assert (made.verify_mode, made.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_what_serves_imports_no_other_http_client() -> None:
    program = "import sys, engram.roles.gateway; print(sorted({'httpx2', 'httpcore2', 'httpx'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
