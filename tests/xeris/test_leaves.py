"""Which outputs an anchor marks, where several have one hash."""

import pytest
from sqlalchemy import select, update

from engram.ledger import open_inline
from engram.xeris import anchoring
from engram.xeris.judging import Refused
from engram.xeris.tables import accepted
from tests.xeris.test_judging import NOW, anchor, read
from tests.xeris.test_pages import keep

pytestmark = pytest.mark.rules


def test_an_output_of_a_later_block_than_the_commitment_is_not_anchored_by_it() -> None:
    """Nodes at rest give one output hash round after round; each is anchored by a root that is not older than it."""
    found, ledger = read(anchor(anchored="memory")), open_inline()
    blocks = (found.block - 1, found.block, found.block + 1)
    for block in blocks:
        ledger.write_now(lambda c, b=block: keep(c, b, 10))  # type: ignore[misc]
    assert ledger.write_now(lambda c: anchoring.keep(c, found, NOW)) == 1
    marked = select(accepted.c.block).where(accepted.c.anchor_id.is_not(None)).order_by(accepted.c.block)
    assert ledger.read_now(lambda c: list(c.scalars(marked))) == [*blocks[:2]]
    ledger.close()


def test_an_anchor_of_an_output_that_is_only_of_a_later_block_is_refused() -> None:
    found, ledger = read(anchor(anchored="memory")), open_inline()
    ledger.write_now(lambda c: keep(c, found.block + 1, 10))
    with pytest.raises(Refused) as refused:
        ledger.write_now(lambda c: anchoring.keep(c, found, NOW))
    assert refused.value.code == "anchor_leaves"
    ledger.close()


@pytest.mark.parametrize("other", [{"kind": "ranking"}, {"netuid": 451}, {"signer": bytes(32)}])
def test_an_anchor_marks_nothing_of_another_kind_subnet_or_signer(other: dict[str, object]) -> None:
    found, ledger = read(anchor(anchored="memory")), open_inline()
    ledger.write_now(lambda c: keep(c, 1, 10))
    ledger.write_now(lambda c: c.execute(update(accepted).values(**other)))
    ledger.write_now(lambda c: keep(c, 2, 10))
    ledger.write_now(lambda c: anchoring.keep(c, found, NOW))
    marked = select(accepted.c.block).where(accepted.c.anchor_id.is_not(None))
    assert ledger.read_now(lambda c: list(c.scalars(marked))) == [2]
    ledger.close()
