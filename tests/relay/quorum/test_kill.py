"""kill -9 of a proposer and of a co-signer: scores leave once, and no key signs two outputs of one block."""

from collections import defaultdict
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import select

from engram.relay import MinerScore
from engram.relay.quorum.model import CandidateState
from engram.relay.tables import relay_outbox
from tests import forked
from tests.relay.quorum.validators import SCORES, Directly, Subnet
from tests.sampling import sample

NEARLY = {**SCORES, "7": MinerScore(0.91, 120.0, 1.0)}
# Commits of the proposer: 1 offered, 2 signed, 3 and 4 co-signatures, 5 queued, 6 a look at what is over.
POINTS = [
    "quorum:proposed",
    "quorum:intended",
    "quorum:bundled",
    *[f"{moment}:{number}" for number in range(1, 6) for moment in ("begin", "commit")],
]


class Witness(Directly):
    """Writes down every signature that leaves a validator, before the other side has it."""

    def __init__(self, asking: object, seen: Path) -> None:
        super().__init__(asking)  # type: ignore[arg-type]  # a Validator
        self._seen = seen

    def note(self, signer: str, output_hash: str) -> None:
        with self._seen.open("a") as seen:
            seen.write(f"{signer} {output_hash}\n")

    async def ask(self, peer, document, block_hash):  # type: ignore[no-untyped-def]  # as Directly.ask
        proposed = self._asking.candidate()
        self.note(self._asking.keypair.ss58, proposed.output_hash)
        opinion = await super().ask(peer, document, block_hash)
        if opinion is not None and opinion.signature is not None:
            self.note(opinion.hotkey, proposed.output_hash)
        return opinion


async def propose(folder: Path, scores: dict[str, MinerScore]) -> None:
    """One start of three validators in one process; the first has these scores, and proposes them."""
    subnet = Subnet(3, folder=folder)
    proposer = subnet.validators[0]
    client = Witness(proposer, folder / "seen")
    proposer.proposing._ports = msgspec.structs.replace(proposer.proposing._ports, client=client)
    proposer.offer(scores)
    subnet.turn_of(0)
    for _ in range(3):
        await proposer.proposing.look()
    subnet.close()


@pytest.mark.parametrize("point", sample("quorum kills", POINTS, 3))
async def test_a_quorum_that_is_killed_signs_one_output_of_a_block_and_queues_it_once(
    point: str, tmp_path: Path
) -> None:
    """After the kill the proposer has measured something else: what was signed stays what is signed."""
    assert await forked.run(lambda: propose(tmp_path, SCORES), kill_at=point) == forked.KILLED
    assert await forked.run(lambda: propose(tmp_path, NEARLY)) == 0
    signed: dict[str, set[str]] = defaultdict(set)
    for line in (tmp_path / "seen").read_text().splitlines():
        signer, output_hash = line.split()
        signed[signer].add(output_hash)
    assert len(signed) == 3, "the proposer and both others"
    assert all(len(outputs) == 1 for outputs in signed.values()), signed
    subnet = Subnet(3, folder=tmp_path)
    proposer = subnet.validators[0]
    assert proposer.candidate().state is CandidateState.BUNDLED
    queued = proposer.ledger.write_now(lambda c: list(c.scalars(select(relay_outbox.c.output_hash)).all()))
    assert queued == [*signed[proposer.keypair.ss58]], "once, and what was signed"
    subnet.close()
