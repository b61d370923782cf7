"""Setting weights on the chain's double, with rounds written into the ledger by hand."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from engram.chain.read.node import Json
from engram.chain.read.view import open_view
from engram.chain.submit.kept_commits import KeptCommits
from engram.chain.submit.sender import Sender
from engram.chain.submit.submit_extrinsic import InclusionWait
from engram.chain.sync.subnets import Subnets
from engram.clock import ManualClock
from engram.ledger import open_inline
from engram.ledger.inline import InlineLedger
from engram.validator.due import Due
from engram.validator.model import Known, Look, Miner, RoundState, Sent, SentState
from engram.validator.records import rounds as round_records
from engram.validator.records import sent as weight_records
from engram.validator.records import standings as miner_records
from engram.validator.standing import Standing
from engram.validator.weights_setter import WeightPorts, WeightsSetter
from tests.chain.test_sender import VALIDATOR
from tests.fakes.living_chain import NETUID, LivingChain

QUICK = InclusionWait(0.001, 2.0)


SUBTENSOR = "SubtensorModule"


class RuledChain(LivingChain):
    """A chain whose metagraph says of its subnet what `rules` says."""

    def __init__(self, **rules: Any) -> None:
        super().__init__()
        self.rules: dict[str, Any] = rules

    def metagraph(self, argument: str, number: int | None, at: Json) -> Json:
        recorded = super().metagraph(argument, number, at)
        if not isinstance(recorded, str) or recorded == "0x00" or argument != "0xc201":
            return recorded
        kind = self._runtime.runtime_api_map()["SubnetInfoRuntimeApi"]["get_metagraph"]["output"]
        fields = self._runtime.decode(kind, bytes.fromhex(recorded[2:]))
        return "0x" + self._runtime.encode(kind, fields | self.rules).hex()

    def timelocked(self) -> None:
        """Weights are committed under a timelock."""
        self.rules["commit_reveal_weights_enabled"] = True
        self.put(True, SUBTENSOR, "CommitRevealWeightsEnabled", NETUID)

    def commits(self) -> list[str]:
        """The timelocked commits of all epochs, in the order of their blocks."""
        prefix = self._key(SUBTENSOR, "CRV3WeightCommits", NETUID)
        found: list[str] = []
        for _, state in sorted(self.states.items()):
            for key, octets in state.items():
                if key.startswith(prefix) and octets is not None:
                    held: Any = self.types.storage_value(SUBTENSOR, "CRV3WeightCommits", bytes.fromhex(octets[2:]))
                    found += [commit for _, commit, _ in held if commit not in found]
        return found


class Setter:
    """A setter of weights over a chain; one look at a time."""

    def __init__(self, ledger: InlineLedger, chain: LivingChain, folder: Path, **changed: Any) -> None:
        self.ledger, self.chain, self.clock = ledger, chain, ManualClock()
        self.subnets = Subnets(self.clock, (NETUID,), 60.0)
        self.settled: list[Sent] = []
        self.counted: list[SentState] = []
        given: dict[str, Any] = {
            "ledger": ledger,
            "subnets": self.subnets,
            "nodes": [chain],
            "sender": Sender([chain], waiting=QUICK),
            "kept": KeptCommits(folder / "commits"),
            "keypair": VALIDATOR,
            "clock": self.clock,
            "netuid": NETUID,
            "version": 100_000,
            "share_scores": False,
            "blacklist": frozenset(),
            "dry_run": False,
            "boot": "boot",
            "settled": lambda connection, sent, last: self.settled.append(sent),
            "counted": self.counted.append,
        }
        self.setter = WeightsSetter(WeightPorts(**given | changed))

    async def sync(self) -> None:
        metagraph = await (await open_view([self.chain])).metagraph(NETUID, self.clock.monotonic())
        self.subnets.publish(metagraph, ())

    async def look(self) -> Due:
        await self.sync()
        return await self.setter.look()

    async def sent(self) -> list[Sent]:
        return await self.ledger.read(lambda c: weight_records.sent_weights(c, NETUID, VALIDATOR.public_key))

    async def score(self, scores: dict[int, float], boot: str = "boot") -> None:
        """A whole round in which the miners with these uids got these averages."""
        await self.sync()
        metagraph = self.subnets.get(NETUID)
        assert metagraph is not None
        found = [metagraph.neurons[uid] for uid in scores]

        def write(connection: Connection) -> None:
            miners = [
                Miner(hotkey=each.hotkey, uid=each.uid, coldkey=each.coldkey, url=f"http://198.51.100.{each.uid}:80")
                for each in found
            ]
            opened = round_records.open_round(
                connection, NETUID, metagraph.block, metagraph.block_hash, boot, 1.0, miners, []
            )
            for each in found:
                standing = Standing(ema=scores[each.uid], rounds=1)
                miner_records.keep(connection, [Known(hotkey=each.hotkey, uid=each.uid, standing=standing)], 1.0)
            results = [(each.hotkey, _result(scores[each.uid])) for each in found]
            round_records.close_round(connection, opened.id, results, RoundState.CLOSED, 2.0)

        await self.ledger.write(write)

    async def noted(self) -> Look:
        """What the last look wrote down, which `validator status` shows."""
        found = await self.ledger.read(lambda c: weight_records.last_look(c, NETUID, VALIDATOR.public_key))
        assert found is not None
        return found

    def weights(self) -> dict[int, int]:
        uid = self.chain.uid(VALIDATOR.public_key)
        return dict(self.chain.get("SubtensorModule", "Weights", NETUID, uid) or ())


def _result(score: float) -> dict[str, object]:
    return {
        "recall": score,
        "latency_ms": 50.0,
        "proof_rate": 1.0,
        "score": score,
        "shared_score": score,
        "group_of": None,
    }


@asynccontextmanager
async def setting(
    folder: Path, chain: Callable[[], LivingChain] = LivingChain, **changed: Any
) -> AsyncIterator[Setter]:
    ledger = open_inline()
    yield Setter(ledger, chain(), folder, **changed)
    ledger.close()
