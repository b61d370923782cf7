"""Which outputs an anchor marks, where several have one hash."""

from itertools import count

import msgspec
import pytest
from sqlalchemy import Connection, func, insert, select, update

from engram.ledger import open_inline
from engram.ledger.inline import InlineLedger
from engram.relay.anchoring.rules import root_of
from engram.xeris import anchoring
from engram.xeris.judging import Refused, Submission
from engram.xeris.tables import accepted, anchors
from tests.relay.test_pending_bound import instructions
from tests.xeris.test_judging import NOW, ONE, anchor, read, resigned
from tests.xeris.test_pages import keep

pytestmark = pytest.mark.rules


def test_an_output_of_a_later_block_than_the_commitment_is_not_anchored_by_it() -> None:
    """Nodes at rest give one output hash round after round; each is anchored by a root that is not older than it."""
    found, ledger = read(anchor(anchored="memory")), open_inline()
    blocks = (found.block - 1, found.block, found.block + 1)
    for block in blocks:
        ledger.write_now(lambda c, b=block: keep(c, b, 10))  # type: ignore[misc]
    assert ledger.write_now(lambda c: anchoring.keep(c, found, NOW, 7)) == 1
    marked = select(accepted.c.block).where(accepted.c.anchor_id.is_not(None)).order_by(accepted.c.block)
    assert ledger.read_now(lambda c: list(c.scalars(marked))) == [*blocks[:2]]
    ledger.close()


def test_an_anchor_of_an_output_that_is_only_of_a_later_block_is_refused() -> None:
    found, ledger = read(anchor(anchored="memory")), open_inline()
    ledger.write_now(lambda c: keep(c, found.block + 1, 10))
    with pytest.raises(Refused) as refused:
        ledger.write_now(lambda c: anchoring.require_leaves(c, found))
    assert refused.value.code == "anchor_leaves"
    ledger.close()


@pytest.mark.parametrize("other", [{"kind": "ranking"}, {"netuid": 451}, {"signer": bytes(32)}])
def test_an_anchor_marks_nothing_of_another_kind_subnet_or_signer(other: dict[str, object]) -> None:
    found, ledger = read(anchor(anchored="memory")), open_inline()
    ledger.write_now(lambda c: keep(c, 1, 10))
    ledger.write_now(lambda c: c.execute(update(accepted).values(**other)))
    ledger.write_now(lambda c: keep(c, 2, 10))
    ledger.write_now(lambda c: anchoring.keep(c, found, NOW, 7))
    marked = select(accepted.c.block).where(accepted.c.anchor_id.is_not(None))
    assert ledger.read_now(lambda c: list(c.scalars(marked))) == [2]
    ledger.close()


LEAVES = 20


def filled(rows: int, at_rest: int) -> InlineLedger:
    """A ledger with so many accepted outputs of ONE of their own hashes, and as many anchored ones of one hash."""
    ledger = open_inline()

    def fill(connection: Connection) -> None:
        keep(connection, 0, 10)
        (row,) = connection.execute(select(accepted)).mappings()
        plain = {name: value for name, value in row.items() if name != "id"}
        for number in range(1, 1 + rows):
            each = {"nonce": f"{number}:n:1", "block": number % 900, "output_hash": f"{number:064x}"}
            connection.execute(insert(accepted).values(plain | each))
        for number in range(at_rest):
            each = {"nonce": f"{number}:r:1", "output_hash": f"{1:064x}", "anchor_id": 1, "leaf": 0}
            connection.execute(insert(accepted).values(plain | each))

    ledger.write_now(fill)
    return ledger


def test_an_anchor_costs_the_ledger_s_writer_the_same_however_much_its_signer_has_had_accepted() -> None:
    found = read(anchor(anchored="memory"))
    whole = found.anchor
    assert whole is not None
    costs = list[int]()
    for rows in (200, 4_000):
        ledger, first = filled(rows, rows), count(1, LEAVES)

        def work(connection: Connection, first: "count[int]" = first) -> None:
            start = next(first)
            leaves = [f"{number:064x}" for number in (*range(start, start + LEAVES), 1)]
            of_leaves = msgspec.structs.replace(whole, leaves=leaves, first=0, count=len(leaves))
            one = msgspec.structs.replace(found, anchor=of_leaves)
            anchoring.require_leaves(connection, one)
            assert anchoring.keep(connection, one, NOW, 7) == LEAVES + 1

        costs.append(instructions(ledger, work))
        marked = select(func.count()).where(accepted.c.anchor_id.is_not(None), accepted.c.block > 0)
        assert ledger.read_now(lambda c, q=marked: c.scalar(q)) == 2 * LEAVES  # type: ignore[misc]
        ledger.close()
    assert costs[1] <= costs[0] + LEAVES, "deeper trees, not a scan for each leaf"


def held(ledger: InlineLedger, found: Submission) -> bool:
    return ledger.read_now(lambda c: anchoring.is_held(c, found))


def test_an_anchor_is_held_by_its_root_until_a_later_commitment_of_it_has_new_outputs_under_it() -> None:
    found, ledger = read(anchor(anchored="memory")), open_inline()
    later = read(resigned(anchor(anchored="memory") | {"block": found.block + 9, "nonce": f"{found.block + 9}:a:1"}))
    other = read(anchor(anchored="memory", leaves=["ab" * 32], root=root_of(["ab" * 32]).hex()))
    ledger.write_now(lambda c: keep(c, 1, 10))
    assert not held(ledger, found)
    ledger.write_now(lambda c: anchoring.keep(c, found, NOW, 7))
    assert held(ledger, found)
    assert held(ledger, later), "nothing is new"
    assert not held(ledger, other), "another root"
    ledger.write_now(lambda c: keep(c, found.block + 1, 10))
    assert held(ledger, found)
    assert not held(ledger, later)
    ledger.write_now(lambda c: anchoring.keep(c, later, NOW, 8))
    shown = select(anchors.c.epoch, anchors.c.signer).order_by(anchors.c.id)
    assert [tuple(row) for row in ledger.read_now(lambda c: c.execute(shown).all())] == [
        (7, ONE.public_key),
        (8, ONE.public_key),
    ]
    ledger.close()
