"""A subnet on one machine: the living chain behind HTTP, on which only the given miners announce an address."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engram.chain.read.node import Json
from engram.hotkeys import Keypair, wallet
from tests.fakes.hashing_chain import HashingChain
from tests.fakes.living_chain import NETUID, LivingChain

SUBTENSOR = "SubtensorModule"
VALIDATOR = Keypair.from_uri("//Alice")
"""Uid 0 of the recorded subnet; it has a validator permit."""


def miner_key(uid: int) -> Keypair:
    """The hotkey of a uid of the recorded subnet, from 1 on."""
    return Keypair.from_uri(f"//sn450//hot//{uid}")


class SmallSubnet(LivingChain):
    """The recorded subnet without its addresses, which belong to strangers: nothing is ever sent there."""

    def __init__(self) -> None:
        super().__init__()
        self.at: dict[str, int] = {}
        """Port on loopback of each miner, by ss58."""
        self.set_at: list[int] = []
        """Blocks in which weights were set, or committed."""
        for name in ("set_weights", "commit_crv3_weights", "commit_weights"):
            if name in self._calls:
                self._calls[name] = self._noting(self._calls[name])
        self.put(0, SUBTENSOR, "WeightsSetRateLimit", NETUID)
        self.put(False, SUBTENSOR, "CommitRevealWeightsEnabled", NETUID)
        self.put([], SUBTENSOR, "Weights", NETUID, 0)

    def _noting(self, call: Callable[[bytes, dict[str, Any]], None]) -> Callable[[bytes, dict[str, Any]], None]:
        def noted(who: bytes, arguments: dict[str, Any]) -> None:
            call(who, arguments)
            self.set_at.append(self.head)

        return noted

    def announce(self, ports: Mapping[int, int]) -> None:
        """The miners with these uids are at these ports."""
        self.at = {miner_key(uid).ss58: port for uid, port in ports.items()}

    def metagraph(self, argument: str, number: int | None, at: Json) -> Json:
        told = super().metagraph(argument, number, at)
        if not isinstance(told, str) or argument != "0xc201":
            return told
        kind = self._runtime.runtime_api_map()["SubnetInfoRuntimeApi"]["get_metagraph"]["output"]
        fields: dict[str, Any] = self._runtime.decode(kind, bytes.fromhex(told[2:]))
        for place, hotkey in enumerate(fields["hotkeys"]):
            port = self.at.get(hotkey)
            axon = dict.fromkeys(fields["axons"][place], 0)
            if port is not None:
                axon |= {"ip": int.from_bytes(bytes([127, 0, 0, 1])), "port": port, "ip_type": 4, "block": 1}
            fields["axons"][place] = axon
        fields["commit_reveal_weights_enabled"] = self.get(SUBTENSOR, "CommitRevealWeightsEnabled", NETUID)
        self.fields_changed(fields)
        return "0x" + self._runtime.encode(kind, fields).hex()

    def fields_changed(self, fields: dict[str, Any]) -> None:
        """Change what else the metagraph says."""

    def commits_first(self) -> None:
        """Weights are committed, and revealed later."""
        self.put(True, SUBTENSOR, "CommitRevealWeightsEnabled", NETUID)

    def weights_of(self, uid: int = 0) -> dict[int, int]:
        """The weights that a validator has set."""
        return dict(self.get(SUBTENSOR, "Weights", NETUID, uid) or ())


class HashingSubnet(SmallSubnet, HashingChain):
    """One whose weights are committed by hash."""

    def __init__(self) -> None:
        super().__init__()
        self.commits_first()


def write_key(path: Path, keypair: Keypair) -> Path:
    wallet.write_hotkey_file(path, keypair)
    return path
