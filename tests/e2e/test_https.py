"""A gateway that speaks https itself, by two settings."""

import shutil
import ssl
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.gateway_process import FAST, GatewayProcess
from tests.http.test_tls import make_certificate

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here to make certificates")


def test_the_gateway_speaks_https_with_a_certificate_of_the_operators(tmp_path: Path) -> None:
    chain, key = make_certificate(tmp_path)
    settings = f'{FAST}\n[gateway]\ntls_certificate = "{chain}"\ntls_key = "{key}"\n'
    with GatewayProcess(tmp_path / "data", settings=settings) as gateway:
        gateway.start()
        assert gateway.url.startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cafile=str(chain))
        with urllib.request.urlopen(f"{gateway.url}/identity", context=context, timeout=10) as answer:
            assert answer.status == 200
        assert gateway.ops_url.startswith("http://")
        assert gateway.terminate() == 0


def test_a_certificate_that_cannot_be_used_is_named_at_the_start(tmp_path: Path) -> None:
    chain, key = make_certificate(tmp_path)
    chain.write_text("no certificate")
    settings = f'{FAST}\n[gateway]\ntls_certificate = "{chain}"\ntls_key = "{key}"\n'
    with GatewayProcess(tmp_path / "data", settings=settings) as gateway:
        gateway.spawn()
        assert not gateway.wait_ready()
        assert "gateway.tls_certificate and gateway.tls_key cannot be used" in gateway.log()
