"""The engine and the addresses that the settings name."""

import shutil
import ssl
from pathlib import Path

import pytest
import trio

from config.model import DockerSettings, ProvisioningSettings, Settings
from engram.provisioning import Unavailable
from engram.provisioning.docker import factory
from engram.provisioning.docker.container import Place
from engram.provisioning.errors import UnusableBackend
from tests.http.test_tls import make_certificate

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="there is no openssl here to make certificates"
)


@needs_openssl
async def test_an_engine_behind_tls_is_shown_our_certificate_and_must_show_its_own(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    (tmp_path / "other").mkdir()
    chain, key = make_certificate(tmp_path)
    other, _ = make_certificate(tmp_path / "other")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(chain))
    server.load_cert_chain(chain, key)
    server.verify_mode = ssl.CERT_REQUIRED
    shown: list[object] = []

    async def answer(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await stream.receive_some(65_536)
            shown.append(stream.getpeercert())
            await stream.send_all(b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 2\r\n\r\nOK")
        except trio.BrokenResourceError:
            return

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    host = f"tcp://127.0.0.1:{listener.socket.getsockname()[1]}"
    nursery.start_soon(trio.serve_listeners, answer, [trio.SSLListener(listener, server, https_compatible=True)])
    ours = DockerSettings(host=host, tls_ca=str(chain), tls_certificate=str(chain), tls_key=str(key))
    await factory.engine(ours).ping()
    assert len(shown) == 1
    for wrong in (
        DockerSettings(host=host, tls_ca=str(chain)),  # shows nothing
        DockerSettings(host=host, tls_ca=str(other), tls_certificate=str(chain), tls_key=str(key)),  # trusts another
    ):
        with pytest.raises(Unavailable):
            await factory.engine(wrong).ping()
    assert len(shown) == 1


def test_files_that_cannot_be_used_stop_the_start_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnusableBackend, match=r"docker\.tls_ca, docker\.tls_certificate and docker\.tls_key"):
        factory.engine(DockerSettings(host="tcp://10.0.0.5:2376", tls_ca=str(tmp_path / "none")))


@pytest.mark.parametrize(
    ("docker", "here", "place"),
    [
        ({}, "127.0.0.1", Place(host="127.0.0.1", bound_to="127.0.0.1")),
        ({}, "nodes.example", Place(host="nodes.example", bound_to="0.0.0.0")),
        ({"node_host": "192.0.2.7"}, "127.0.0.1", Place(host="192.0.2.7", bound_to="192.0.2.7")),
        ({"host": "tcp://10.0.0.5:2376"}, "127.0.0.1", Place(host="10.0.0.5", bound_to="0.0.0.0")),
        (
            {"host": "tcp://10.0.0.5:2376", "node_host": "n.example", "network": "nodes"},
            "127.0.0.1",
            Place(host="n.example", bound_to="0.0.0.0", network="nodes"),
        ),
    ],
)
def test_nodes_are_reached_where_the_engine_is(docker: dict[str, str], here: str, place: Place) -> None:
    settings = Settings(
        provisioning=ProvisioningSettings(node_host=here),
        docker=DockerSettings(**docker),  # type: ignore[arg-type]  # of their types
    )
    assert factory.place(settings) == place
