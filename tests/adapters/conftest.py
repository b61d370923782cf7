"""A real node for all tests of the adapters, and clients in namespaces of their own."""

import itertools
from collections.abc import Callable, Iterator

import pytest

from config.model import MinerSettings
from engram.sdk import HybridCipher, NamespaceCipher, NodeClient
from engram.sdk.encryption import Cipher
from tests.miner.nodes import CONTROLLER, NodeProcess, node

NewClient = Callable[..., NodeClient]
_numbers = itertools.count()


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with node(tmp_path_factory.mktemp("node"), miner=MinerSettings(private_bucket_ms=0)) as made:
        yield made


@pytest.fixture
def new_client(running: NodeProcess) -> Iterator[NewClient]:
    """Makes clients of the test's own namespace."""
    made: list[NodeClient] = []
    namespace = f"n{next(_numbers)}"

    def new(cipher: Cipher | None = None) -> NodeClient:
        url = f"http://127.0.0.1:{running.port}"
        made.append(NodeClient(url, CONTROLLER, namespace=namespace, cipher=cipher, embed=_never))
        return made[-1]

    yield new
    for client in made:
        client.close()


def _never(text: str) -> list[float]:
    raise AssertionError(f"the adapters bring their own vectors, and were asked for one of {text!r}")


def ciphers() -> dict[str, Cipher | None]:
    hybrid, _, _ = HybridCipher.generate()
    return {"plain": None, "namespace": NamespaceCipher("vault", "0123456789abcdef"), "hybrid": hybrid}
