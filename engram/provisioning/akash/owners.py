"""Whose deployments the ledger holds: the account that signed the create of each."""

from collections.abc import Sequence
from functools import partial

from engram.ledger import Ledger
from engram.provisioning.akash import records, transactions, tx
from engram.provisioning.akash.messages import CreateDeployment
from engram.provisioning.akash.transactions import Outgoing, Subject


async def other_owners(ledger: Ledger, owner: str) -> Sequence[str]:
    """Return the addresses, other than `owner`, of the deployments that are not closed."""
    found: dict[str, None] = {}
    for row in await ledger.read(records.all_live):
        create = await ledger.read(partial(transactions.latest, dseq=row.dseq, subject=Subject.CREATE))
        if create is not None:
            found.update(dict.fromkeys(_owners(create)))
    return [address for address in found if address != owner]


def _owners(create: Outgoing) -> Sequence[str]:
    messages = tx.decode_tx(create.raw).messages
    return [message.id.owner for message in messages if isinstance(message, CreateDeployment)]
