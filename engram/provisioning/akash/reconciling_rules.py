"""What becomes of each deployment that the chain shows as active. Pure.

| on chain, by its manifest's hash           | verdict                                      |
|--------------------------------------------|----------------------------------------------|
| ours, and its row lives                    | KEEP                                         |
| ours, and its row is closed                | CLOSE: the row was wrong, or too early       |
| unknown, and its number is of a row that  | KEEP: reported; a session is not ended by    |
| lives                                      | what one endpoint shows of its manifest      |
| unknown, number of ours, older than 15 min | CLOSE: an orphan of a ledger that was lost   |
| unknown, number of ours, younger           | WAIT: its commit may be on its way           |
| unknown, number of somebody else           | FOREIGN: reported, never touched             |
"""

from enum import StrEnum

from engram.provisioning.akash import numbering
from engram.provisioning.akash.model import Deployment, DeploymentState


class Verdict(StrEnum):
    """What is done about a deployment on chain."""

    KEEP = "keep"
    CLOSE = "close"
    WAIT = "wait"
    FOREIGN = "foreign"


def verdict(
    dseq: int, row: Deployment | None, ledger_id: str, now: float, orphan_age_s: float, *, is_live: bool = False
) -> Verdict:
    """Return what is done about an active deployment of the account; `row` is what the ledger holds for its hash,
    `is_live` whether it holds a row of its number that is not closed."""
    if row is not None and row.dseq == dseq:
        return Verdict.CLOSE if row.state is DeploymentState.CLOSED else Verdict.KEEP
    if is_live:
        return Verdict.KEEP
    if not numbering.is_ours(ledger_id, dseq):
        return Verdict.FOREIGN
    return Verdict.CLOSE if now - numbering.made_at(dseq) > orphan_age_s else Verdict.WAIT
