"""A newer runtime than the recorded one, made from its metadata, and a chain that upgrades to it.

No recording of runtime 425 exists here. What is known to differ there is done to the recorded metadata, and what an
upgrade may do to any runtime: pallets, calls and errors get other indices, the metagraph gets new fields in the middle
and others in another order and width, extrinsics get more signed extensions, weights are committed by another call,
and trust, rank and pruning scores are empty.
"""

from functools import cache
from typing import Any

from engram.chain.read.node import Json, RpcCall
from engram.chain.read.runtime import RuntimeTypes
from tests.fakes import metadata_v15
from tests.fakes.chain import recording
from tests.fakes.living_chain import COMMITMENTS, SUBTENSOR, LivingChain, Refused
from tests.fakes.metadata_v15 import Tree

SPEC_VERSION = 425
PALLETS = {"SubtensorModule": 77, "Commitments": 88}
NEW_EXTENSIONS = ("SudoTransactionExtension", "CheckShieldedTxValidity", "DrandPriority")
SHIFT = 100
"""By how much the indices of calls and errors of those pallets move, around in their byte."""
EMPTY = ("trust", "rank", "pruning_score")


@cache
def metadata() -> str:
    """What the newer runtime answers for its metadata."""
    tree = metadata_v15.read(bytes.fromhex(recording().metadata[2:]))
    types = {one["id"]: one["type"] for one in tree["types"]}
    numbers = {one["definition"].get("primitive"): number for number, one in types.items()}
    unit = next(number for number, one in types.items() if one["definition"] == {"tuple": []})
    _new_call(tree, types, u16=numbers[4], u64=numbers[6])
    _move_indices(tree, types)
    _change_metagraph(types, boolean=numbers[0], u64=numbers[6])
    _extend_extrinsics(tree, types, unit)
    return "0x" + metadata_v15.write(tree).hex()


def _new_call(tree: Tree, types: dict[int, Tree], *, u16: int, u64: int) -> None:
    pallet = next(one for one in tree["pallets"] if one["name"] == "SubtensorModule")
    calls = types[pallet["calls"]]["definition"]["variant"]
    older = next(call for call in calls if call["name"] == "commit_crv3_weights")
    version = {"name": "commit_reveal_version", "type": u16, "type_name": "u16", "docs": []}
    older["name"] = "commit_timelocked_weights"
    older["fields"] = [*older["fields"], version]
    entries = {entry["name"]: entry for entry in pallet["storage"]["entries"]}
    entries["CRV3WeightCommits"]["name"] = "TimelockedWeightCommits"
    plain = {"modifier": 1, "docs": []}
    by_netuid = entries["BlocksSinceLastStep"]["type"]["map"] | {"value": u64}
    pallet["storage"]["entries"] += [
        {**plain, "name": "CommitRevealWeightsVersion", "type": {"plain": u16}, "default": b"\x06\x00"},
        *(
            {**plain, "name": name, "type": {"map": by_netuid}, "default": bytes(8)}
            for name in ("LastEpochBlock", "PendingEpochAt", "SubnetEpochIndex")
        ),
    ]


def _move_indices(tree: Tree, types: dict[int, Tree]) -> None:
    for outer in ("call", "event", "error"):
        for variant in types[tree["outer"][outer]]["definition"]["variant"]:
            variant["index"] = PALLETS.get(variant["name"], variant["index"])
    for pallet in tree["pallets"]:
        if pallet["name"] in PALLETS:
            pallet["index"] = PALLETS[pallet["name"]]
            for kind in ("calls", "errors"):
                for variant in types[pallet[kind]]["definition"]["variant"]:
                    variant["index"] = (variant["index"] + SHIFT) % 256


def _change_metagraph(types: dict[int, Tree], *, boolean: int, u64: int) -> None:
    (found,) = [one for one in types.values() if one["path"][-1:] == ["Metagraph"]]
    fields = found["definition"]["composite"]
    fields[next(place for place, one in enumerate(fields) if one["name"] == "tempo")]["type"] = u64
    new = [
        {"name": "subnet_is_dormant", "type": boolean, "type_name": "bool", "docs": []},
        {"name": "epochs_skipped", "type": u64, "type_name": "u64", "docs": []},
    ]
    half = len(fields) // 2
    found["definition"]["composite"] = [*fields[half:], *new, *fields[:half]]


def _extend_extrinsics(tree: Tree, types: dict[int, Tree], unit: int) -> None:
    extrinsic = tree["extrinsic"]
    added = [{"identifier": name, "type": unit, "additional": unit} for name in NEW_EXTENSIONS]
    extrinsic["extensions"] = [*extrinsic["extensions"][:-1], *added, extrinsic["extensions"][-1]]
    types[extrinsic["extra"]]["definition"]["tuple"] = [one["type"] for one in extrinsic["extensions"]]


@cache
def _types(octets: str, spec_version: int) -> RuntimeTypes:
    return RuntimeTypes(bytes.fromhex(octets[2:]), spec_version, 1)


class UpgradingChain(LivingChain):
    """Runs the recorded runtime until `upgrade`; blocks of before stay what they were."""

    def __init__(self, name: str = "upgrading", head: int = 1100) -> None:
        super().__init__(name, head)
        self.upgraded_at: int | None = None
        """The first block of the newer runtime."""
        self._calls["commit_timelocked_weights"] = self._commit_timelocked

    def upgrade(self, spec_version: int = SPEC_VERSION) -> None:
        """The next block is of the newer runtime; what waits in the pool was signed for the old one."""
        self.upgraded_at = self.head + 1
        self.spec_version = spec_version
        self.types = _types(metadata(), spec_version)
        self._runtime = self.types.core
        self._events_type = self._runtime.storage_entry("System", "Events").value_type
        self.pool.clear()
        self.seal()

    def is_newer(self, at: Json) -> bool:
        """Whether the block of this hash is of the newer runtime."""
        number = self.number(at)
        return self.upgraded_at is not None and (number or self.head) >= self.upgraded_at

    def answer(self, call: RpcCall) -> Json:
        if call.method in self.refuse or call.method in self.replace:
            return super().answer(call)
        match call.method, *call.params:
            case ["state_call", "Metadata_metadata_at_version", _, at] if self.is_newer(at):
                self.asked.append(call.method)
                return metadata()
            case ["state_getRuntimeVersion", at]:
                self.asked.append(call.method)
                version = self.spec_version if self.is_newer(at) else 293
                return {**recording().runtime_version, "specVersion": version}
            case _:
                return super().answer(call)

    def metagraph(self, argument: str, number: int | None, at: Json) -> Json:
        """In the shape of the runtime of that block."""
        now, self.types = self.types, _types(recording().metadata, 293)
        self._runtime = self.types.core
        told = super().metagraph(argument, number, at)
        older, self.types = self._runtime, now
        self._runtime = now.core
        if not isinstance(told, str) or told == "0x00" or not self.is_newer(at):
            return told
        kind = older.runtime_api_map()["SubnetInfoRuntimeApi"]["get_metagraph"]["output"]
        fields: dict[str, Any] = older.decode(kind, bytes.fromhex(told[2:]))
        fields |= {"subnet_is_dormant": True, "epochs_skipped": 2**40} | {name: [] for name in EMPTY}
        kind = self._runtime.runtime_api_map()["SubnetInfoRuntimeApi"]["get_metagraph"]["output"]
        return "0x" + self._runtime.encode(kind, fields).hex()

    def _failed(self, refused: Refused) -> dict[str, Any]:
        if self.upgraded_at is not None:
            names = {SUBTENSOR: "SubtensorModule", COMMITMENTS: "Commitments"}
            refused = Refused(PALLETS[names[refused.pallet]], (refused.error + SHIFT) % 256)
        return super()._failed(refused)

    def _commit_timelocked(self, who: bytes, arguments: dict[str, Any]) -> None:
        netuid = arguments["netuid"]
        if not self.get("SubtensorModule", "CommitRevealWeightsEnabled", netuid):
            raise Refused(SUBTENSOR, 55)
        if arguments["commit_reveal_version"] != self.get("SubtensorModule", "CommitRevealWeightsVersion"):
            raise Refused(SUBTENSOR, 111 - SHIFT)
        self._validator(who, netuid)
        held = self.get("SubtensorModule", "TimelockedWeightCommits", netuid, 0) or []
        commit = (who, arguments["commit"], arguments["reveal_round"])
        self.put([*held, commit], "SubtensorModule", "TimelockedWeightCommits", netuid, 0)
