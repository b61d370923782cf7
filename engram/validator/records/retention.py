"""What a validator forgets when a round ends, so that its ledger does not grow. Functions run inside `ledger.write`."""

from sqlalchemy import Connection, delete, func, select

from engram.ledger.sql import one_of
from engram.validator.model import RoundState
from engram.validator.records import plants
from engram.validator.records import rounds as round_records
from engram.validator.records.sent import MAY_HAVE_ARRIVED
from engram.validator.tables import families, miners, planted, questions, round_miners, rounds, signers, weights_sent


def purge(
    connection: Connection, netuid: int, round_id: int, block: int, keep_rounds: int, planted_rounds: int
) -> None:
    """Remove what the newest `keep_rounds` rounds do not need; `block` and `round_id` are those of the round that ends.

    The newest whole round stays, and the newest weights that may be on the chain: weights follow from the one, and
    whether an epoch has had its weights from the other.
    """
    _purge_rounds(connection, netuid, round_id - keep_rounds)
    _purge_weights(connection, netuid, round_id - keep_rounds)
    _purge_gone(connection, block)
    plants.purge(connection, round_id, planted_rounds)


def _purge_rounds(connection: Connection, netuid: int, before: int) -> None:
    whole = round_records.last_round(connection, netuid, RoundState.CLOSED)
    kept = 0 if whole is None else whole.id
    for table in (questions, round_miners):
        connection.execute(delete(table).where(table.c.round_id < before, table.c.round_id != kept))
    connection.execute(delete(rounds).where(rounds.c.netuid == netuid, rounds.c.id < before, rounds.c.id != kept))


def _purge_weights(connection: Connection, netuid: int, before: int) -> None:
    may_stand = one_of(weights_sent.c.state, MAY_HAVE_ARRIVED) & (weights_sent.c.netuid == netuid)
    newest = select(func.max(weights_sent.c.id)).where(may_stand).group_by(weights_sent.c.hotkey)
    old = (weights_sent.c.netuid == netuid, weights_sent.c.round_id < before)
    connection.execute(delete(weights_sent).where(*old, weights_sent.c.id.not_in(newest)))


def _purge_gone(connection: Connection, block: int) -> None:
    """Forget the hotkeys that are in no round that is kept, once a slash of theirs is over."""
    oldest = select(func.min(rounds.c.opened_at)).scalar_subquery()
    in_a_round = select(round_miners.c.hotkey).where(round_miners.c.hotkey == miners.c.hotkey)
    is_free = miners.c.slashed_until_block.is_(None) | (miners.c.slashed_until_block <= block)
    query = select(miners.c.hotkey).where(miners.c.updated_at < oldest, is_free, ~in_a_round.exists())
    gone = list(connection.execute(query).scalars())
    for table in (planted, families, signers, miners) if gone else ():
        connection.execute(delete(table).where(table.c.hotkey.in_(gone)))
