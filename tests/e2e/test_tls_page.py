"""The pages on fronts: what they say to write works, with the front that it is written for."""

import re
import shutil
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.gateway_process import FAST, GatewayProcess
from tests.http.test_tls import make_certificate
from tests.proxy.backends import closed_port
from tests.proxy.fronts import running

PAGE = (Path(__file__).parents[2] / "docs" / "tls.md").read_text(encoding="utf-8")
pytestmark = [pytest.mark.heavy, pytest.mark.external]


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    settings = FAST.replace("[http]\n", '[http]\ntrusted_proxies = ["127.0.0.1/32"]\n')
    with GatewayProcess(tmp_path / "data", settings=settings) as running:
        yield running.start()


def client_seen_by(gateway: GatewayProcess, path: str) -> str:
    lines = [line for line in gateway.log().splitlines() if f'"path":"{path}"' in line]
    found = re.search(r'"client":"([^"]+)"', lines[-1])
    assert found is not None
    return found[1]


@pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx")
def test_nginx_as_it_is_written_passes_requests_and_addresses_on(gateway: GatewayProcess, tmp_path: Path) -> None:
    """With what certbot adds to it: the certificate and its port."""
    chain, key = make_certificate(tmp_path)
    port = closed_port()
    certified = f"listen 127.0.0.1:{port} ssl;\nssl_certificate {chain};\nssl_certificate_key {key};"
    server = block("nginx").replace("listen 80;", certified).replace("http://127.0.0.1:9000", gateway.url)
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"daemon off; master_process off; pid {tmp_path}/nginx.pid; error_log stderr;\nevents {{}}\n"
        f"http {{ access_log off; client_body_temp_path {tmp_path}; proxy_temp_path {tmp_path}; "
        f"fastcgi_temp_path {tmp_path}; uwsgi_temp_path {tmp_path}; scgi_temp_path {tmp_path};\n{server}}}\n"
    )
    checked = subprocess.run(
        ["nginx", "-t", "-c", str(config), "-p", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    command = ["nginx", "-c", str(config), "-p", str(tmp_path)]
    context = ssl.create_default_context(cafile=str(chain))
    asking = urllib.request.Request(f"https://127.0.0.1:{port}/identity", headers={"X-Forwarded-For": "192.0.2.9"})
    with running(command, port, tmp_path / "nginx.out"), urllib.request.urlopen(asking, context=context) as answer:
        assert answer.status == 200
    gateway.terminate()
    # The client of nginx is on loopback, and trusted as nginx itself is: so is what it says.
    assert client_seen_by(gateway, "/identity") == "192.0.2.9"


@pytest.mark.skipif(shutil.which("caddy") is None, reason="needs caddy")
def test_caddys_file_as_it_is_written_is_valid(tmp_path: Path) -> None:
    file = tmp_path / "Caddyfile"
    file.write_text(block("caddy"))
    command = ["caddy", "adapt", "--config", str(file), "--adapter", "caddyfile", "--validate"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, env={"HOME": str(tmp_path)})
    assert checked.returncode == 0, checked.stderr
