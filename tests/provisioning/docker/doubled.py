"""A backend whose engine is the double."""

from pathlib import Path

import msgspec

from engram.hotkeys import Keypair, wallet
from engram.provisioning import NodeSpec
from engram.provisioning.docker.backend import DockerBackend
from tests.fakes.engine import EngineDouble
from tests.provisioning import contract
from tests.provisioning.test_local import a_spec

NAME = f"engram-{contract.token('t1')}"


class Bench:
    """The double, and a backend that speaks to it."""

    def __init__(self, folder: Path, double: EngineDouble, backend: DockerBackend) -> None:
        self.folder, self.double, self.backend = folder, double, backend

    def spec(self) -> NodeSpec:
        key = self.folder / "key"
        if not key.exists():
            wallet.write_hotkey_file(key, Keypair.generate())
        public_key = wallet.read_hotkey_file(key).public_key
        return msgspec.structs.replace(a_spec(), hotkey=public_key, hotkey_file=str(key))
