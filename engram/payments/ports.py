"""What the payments area is given from outside."""

from collections.abc import Callable

import msgspec
from sqlalchemy import Connection

from actors import Registry
from config.model import Settings
from engram.clock import Ids
from engram.hints import Hints
from engram.ledger import Ledger
from engram.payments.evidence import Evidence
from engram.payments.facilitator import Facilitator
from engram.payments.protocol import NewSession, Wanted
from engram.payments.refund_key import RefundKey
from engram.sessions import Instants
from engram.telemetry.metrics import Metrics


class PaymentPorts(msgspec.Struct, frozen=True, kw_only=True):
    """The ports of the payment verifier and of its purchases."""

    registry: Registry
    settings: Settings
    ledger: Ledger
    facilitator: Facilitator
    instants: Instants
    ids: Ids
    metrics: Metrics
    hints: Hints
    places: Callable[[Wanted | None], int]
    """How many sessions may hold a node if this one is to, read each time; None: any."""
    places_in: Callable[[Connection, NewSession], int] | None = None
    """The same by what the ledger shows in this transaction, for what is sold between two looks at the backends."""
    refund_key: RefundKey | None = None
    """None: refunds wait for the operator."""
    evidence: Evidence | None = None
    """Where there is one, the chain is read for what became of payments."""
