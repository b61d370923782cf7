"""kill -9 of a proposer and of a co-signer: scores leave once, and no key signs two outputs of one block."""

from collections import defaultdict
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import select

from engram.relay import MinerScore
from engram.relay.quorum.model import CandidateState, Proposal
from engram.relay.quorum.proposals import read_proposal
from engram.relay.tables import relay_outbox
from tests import forked
from tests.relay.quorum.validators import SCORES, WEIGHTS, Directly, Subnet
from tests.sampling import sample

NEARLY = {**SCORES, "7": MinerScore(0.91, 120.0, 1.0)}
# Commits of the proposer: 1 offered, 2 signed, 3 and 4 co-signatures, 5 queued, 6 a look at what is over.
POINTS = [
    "quorum:proposed",
    "quorum:intended",
    "quorum:bundled",
    *[f"{moment}:{number}" for number in range(1, 11) for moment in ("begin", "commit")],
]


class Witness(Directly):
    """Writes down every signature that leaves a validator, before the other side has it."""

    def __init__(self, asking: object, seen: Path) -> None:
        super().__init__(asking)  # type: ignore[arg-type]  # a Validator
        self._seen = seen

    def note(self, signer: str, proposed: Proposal) -> None:
        with self._seen.open("a") as seen:
            seen.write(f"{signer} {proposed.kind} {proposed.output_hash}\n")

    async def ask(self, peer, document, block_hash):  # type: ignore[no-untyped-def]  # as Directly.ask
        proposed = read_proposal(document, block_hash.hex())
        self.note(self._asking.keypair.ss58, proposed)
        opinion = await super().ask(peer, document, block_hash)
        if opinion is not None and opinion.signature is not None:
            self.note(opinion.hotkey, proposed)
        return opinion


async def propose(folder: Path, scores: dict[str, MinerScore], weights: dict[int, float]) -> None:
    """One start of three validators in one process; the first has these scores and weights, and proposes them."""
    subnet = Subnet(3, folder=folder)
    proposer = subnet.validators[0]
    client = Witness(proposer, folder / "seen")
    proposer.proposing._ports = msgspec.structs.replace(proposer.proposing._ports, client=client)
    proposer.offer(scores)
    for each in subnet.validators:
        each.offer_ranking(weights if each is proposer else WEIGHTS)
    subnet.turn_of(0)
    for _ in range(3):
        await proposer.proposing.look()
    subnet.close()


@pytest.mark.parametrize("point", sample("quorum kills", POINTS, 3))
async def test_a_quorum_that_is_killed_signs_one_output_of_a_block_and_queues_it_once(
    point: str, tmp_path: Path
) -> None:
    """After the kill the proposer has measured something else: what was signed stays what is signed."""
    assert await forked.run(lambda: propose(tmp_path, SCORES, WEIGHTS), kill_at=point) == forked.KILLED
    assert await forked.run(lambda: propose(tmp_path, NEARLY, {7: 0.89, 9: 0.11})) == 0
    signed: dict[tuple[str, str], set[str]] = defaultdict(set)
    for line in (tmp_path / "seen").read_text().splitlines():
        signer, kind, output_hash = line.split()
        signed[signer, kind].add(output_hash)
    assert len(signed) == 6, "scores and ranking, the proposer and both others"
    assert all(len(outputs) == 1 for outputs in signed.values()), signed
    subnet = Subnet(3, folder=tmp_path)
    proposer = subnet.validators[0]
    for kind in ("scores", "ranking"):
        assert proposer.candidate(kind).state is CandidateState.BUNDLED
        rows = select(relay_outbox.c.output_hash).where(relay_outbox.c.kind == kind)
        queued = proposer.ledger.write_now(lambda c, q=rows: list(c.scalars(q).all()))  # type: ignore[misc]
        assert queued == [*signed[proposer.keypair.ss58, kind]], "once, and what was signed"
    subnet.close()
