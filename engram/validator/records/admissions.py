"""Whether a miner admits keys that it does not know, by what became of the records planted in the newest rounds.

Functions run inside `ledger.write` or `ledger.read`.
"""

from typing import Final

from sqlalchemy import Connection, distinct, func, select, update

from engram.ledger.sql import one_of
from engram.validator.model import SEEDS, PlantState
from engram.validator.tables import miners, planted

NOT_ADMITTED: Final = "its signer is not admitted"
"""How the reason of a record begins whose own signer the miner refused."""
UNTIMELY: Final = "the time of the request"
"""How the reason of a record begins that the miner refused for that."""
NOT_DELETED: Final = "it does not delete it"
"""How the reason of a record begins whose deletion the miner answered with anything else."""
REFUSING_ROUNDS: Final = 3
"""Rounds in a row in which a miner refuses every key that is not the validator's, before it counts as one that admits
registered keys alone: a single refusal would show a miner the validator's key on every record, for the asking."""
_TAKEN: Final = (PlantState.HELD, PlantState.DELETING, PlantState.DELETED)


def was_refused(connection: Connection, hotkey: bytes, round_id: int) -> bool:
    """Return whether a miner refused a record's own signer in a round."""
    query = select(planted.c.id).where(
        planted.c.hotkey == hotkey,
        planted.c.planted_round == round_id,
        planted.c.reason.startswith(NOT_ADMITTED),
    )
    return connection.execute(query.limit(1)).first() is not None


def note_refusal(connection: Connection, hotkey: bytes, round_id: int, own: bytes, at: float) -> bool:
    """Return whether a miner admits registered keys alone, now that it has refused a signer in a round; note that.

    `own` is the validator's key. One key that is admitted within REFUSING_ROUNDS rounds says that it does not.
    """
    is_refusal = planted.c.reason.startswith(NOT_ADMITTED)
    is_admitted = one_of(planted.c.state, _TAKEN) & (planted.c.signer != own)
    query = select(
        func.count(distinct(planted.c.planted_round)).filter(is_refusal),
        func.count().filter(is_admitted),
    ).where(
        planted.c.hotkey == hotkey,
        planted.c.planted_round.between(round_id - REFUSING_ROUNDS + 1, round_id),
        planted.c.family_id != SEEDS,
    )
    rounds, admitted = connection.execute(query).one()
    if rounds >= REFUSING_ROUNDS and not admitted:
        mark(connection, hotkey, at, registered_only=True)
    return bool(connection.scalar(select(miners.c.registered_only).where(miners.c.hotkey == hotkey)))


def mark(connection: Connection, hotkey: bytes, at: float, *, registered_only: bool) -> None:
    """Note whether a miner takes registered keys alone: it then gets its records by the validator's own key."""
    marked = update(miners).where(miners.c.hotkey == hotkey, miners.c.registered_only != int(registered_only))
    connection.execute(marked.values(registered_only=int(registered_only), updated_at=at))
