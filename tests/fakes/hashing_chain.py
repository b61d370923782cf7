"""A living chain whose runtime knows commit-reveal by hash only, and holds to its rules.

The recorded runtime has the timelocked call as well; its metadata is given here with that call under another name. The
rules of commit_weights and reveal_weights are the pallet's (pallets/subtensor/src/subnets/weights.rs).
"""

import hashlib
from typing import Any

from engram.chain.read.node import Json, RpcCall
from engram.chain.read.runtime import RuntimeTypes
from tests.fakes.chain import recording
from tests.fakes.living_chain import SUBTENSOR, LivingChain, Refused

TIMELOCKED, RENAMED = b"commit_crv3_weights", b"unknown_crv3_weight"
COMMITS_AT_MOST = 10


def metadata() -> str:
    octets = bytes.fromhex(recording().metadata[2:])
    assert len(TIMELOCKED) == len(RENAMED)
    assert octets.count(TIMELOCKED) >= 1
    return "0x" + octets.replace(TIMELOCKED, RENAMED).hex()


class HashingChain(LivingChain):
    """See above."""

    def __init__(self, name: str = "hashing", head: int = 1100) -> None:
        super().__init__(name, head)
        self.types = RuntimeTypes(bytes.fromhex(metadata()[2:]), 293, 1)
        self._runtime = self.types.core
        self._calls |= {"commit_weights": self._commit_hash, "reveal_weights": self._reveal}
        self.put(True, "SubtensorModule", "CommitRevealWeightsEnabled", 450)
        self.put(0, "SubtensorModule", "WeightsSetRateLimit", 450)

    def answer(self, call: RpcCall) -> Json:
        if call.method == "state_call" and call.params[0] == "Metadata_metadata_at_version":
            self.asked.append(call.method)
            return metadata()
        return super().answer(call)

    def metagraph(self, argument: str, number: int | None, at: Json) -> Json:
        """The recorded one, with the parameters that decide about reveals."""
        told = super().metagraph(argument, number, at)
        if not isinstance(told, str) or told == "0x00" or argument != "0xc201":
            return told
        kind = self._runtime.runtime_api_map()["SubnetInfoRuntimeApi"]["get_metagraph"]["output"]
        fields = self._runtime.decode(kind, bytes.fromhex(told[2:]))
        fields["commit_reveal_weights_enabled"] = self.get("SubtensorModule", "CommitRevealWeightsEnabled", 450)
        fields["commit_reveal_period"] = self.get("SubtensorModule", "RevealPeriodEpochs", 450)
        fields["tempo"] = self.get("SubtensorModule", "Tempo", 450)
        return "0x" + self._runtime.encode(kind, fields).hex()

    def epoch(self, block: int, netuid: int = 450) -> int:
        tempo: int = self.get("SubtensorModule", "Tempo", netuid)
        return (block + netuid + 1) // (tempo + 1)

    def _age(self, block: int, netuid: int) -> int:
        """Epochs since the one of this block's reveal: below 0 too early, above 0 too late."""
        period: int = self.get("SubtensorModule", "RevealPeriodEpochs", netuid)
        return self.epoch(self.head, netuid) - self.epoch(block, netuid) - period

    def _enabled(self, netuid: int) -> None:
        if not self.get("SubtensorModule", "CommitRevealWeightsEnabled", netuid):
            raise Refused(SUBTENSOR, 55)

    def _commit_hash(self, who: bytes, arguments: dict[str, Any]) -> None:
        netuid = arguments["netuid"]
        self._enabled(netuid)
        uid = self.uid(who, netuid)
        if uid is None:
            raise Refused(SUBTENSOR, 5)
        updates = self.get("SubtensorModule", "LastUpdate", netuid)
        if updates[uid] and self.head - updates[uid] < self.get("SubtensorModule", "WeightsSetRateLimit", netuid):
            raise Refused(SUBTENSOR, 81)
        held = self.get("SubtensorModule", "WeightCommits", netuid, who) or []
        while held and self._age(held[0][1], netuid) > 0:
            held.pop(0)
        if len(held) >= COMMITS_AT_MOST:
            raise Refused(SUBTENSOR, 77)
        tempo = self.get("SubtensorModule", "Tempo", netuid)
        period = self.get("SubtensorModule", "RevealPeriodEpochs", netuid)
        first = (self.epoch(self.head, netuid) + period) * (tempo + 1) - netuid - 1
        commits = [*held, (arguments["commit_hash"], self.head, first, first + tempo)]
        self.put(commits, "SubtensorModule", "WeightCommits", netuid, who)
        updates[uid] = self.head
        self.put(updates, "SubtensorModule", "LastUpdate", netuid)

    def _reveal(self, who: bytes, arguments: dict[str, Any]) -> None:
        netuid = arguments["netuid"]
        self._enabled(netuid)
        held = self.get("SubtensorModule", "WeightCommits", netuid, who)
        if held is None:
            raise Refused(SUBTENSOR, 52)
        expired = []
        while held and self._age(held[0][1], netuid) > 0:
            expired.append(held.pop(0)[0])
        revealed = "0x" + self.commit_hash(who, arguments).hex()
        if revealed not in [digest for digest, *_ in held]:
            raise Refused(SUBTENSOR, 78 if revealed in expired else 53 if held else 52)
        place = [digest for digest, *_ in held].index(revealed)
        if self._age(held[place][1], netuid) < 0:
            raise Refused(SUBTENSOR, 79)
        self._weigh(who, arguments)
        left = held[place + 1 :]
        if left:
            self.put(left, "SubtensorModule", "WeightCommits", netuid, who)
        else:
            self.states[self.head][self._key("SubtensorModule", "WeightCommits", netuid, who)] = None

    def commit_hash(self, who: bytes, arguments: dict[str, Any]) -> bytes:
        """By the types that the metadata gives the call's arguments, not by the code under test."""
        encode = self._runtime.encode
        octets = who + encode("u16", arguments["netuid"])
        octets += b"".join(encode("Vec<u16>", list(arguments[name])) for name in ("uids", "values", "salt"))
        octets += encode("u64", arguments["version_key"])
        return hashlib.blake2b(octets, digest_size=32).digest()

    def _weigh(self, who: bytes, arguments: dict[str, Any]) -> None:
        netuid, uids, values = arguments["netuid"], arguments["uids"], arguments["values"]
        uid = self._validator(who, netuid)
        if arguments["version_key"] < self.get("SubtensorModule", "WeightsVersionKey", netuid):
            raise Refused(SUBTENSOR, 30)
        if len(set(uids)) != len(uids):
            raise Refused(SUBTENSOR, 18)
        scale = 65_535 / max(values)
        weights = [(one, int(value * scale)) for one, value in zip(uids, values, strict=True)]
        self.put(weights, "SubtensorModule", "Weights", netuid, uid)
