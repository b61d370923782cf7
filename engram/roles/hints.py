"""The hints of a gateway: each is sent to the actor that owns the facts, and to the parts that display them."""

from typing import final

from actors import Registry
from engram.gateway.feed import EventFeed
from engram.hints import Hints
from engram.payments.actor import PAYMENT_VERIFIER, PaymentVerifier
from engram.payments.protocol import Reread
from engram.provisioning.actor import PROVISIONER, Provisioner
from engram.provisioning.protocol import SessionChanged
from engram.relay.actor import RELAY_EMITTER, RelayEmitter
from engram.relay.protocol import OutboxGrew
from engram.stats import StatsView


@final
class GatewayHints(Hints):
    """Sends hints; the observer of the event stream counts lost ones in one metric."""

    def __init__(self, registry: Registry, feed: EventFeed, samples: StatsView) -> None:
        self._verifier = registry.ref(PaymentVerifier, PAYMENT_VERIFIER)
        self._provisioner = registry.ref(Provisioner, PROVISIONER)
        self._emitter = registry.ref(RelayEmitter, RELAY_EMITTER)
        self._feed = feed
        self._samples = samples
        self.usable_keys: int | None = None
        """None where keys are made on demand, or have not been counted yet."""

    def session_changed(self, session_id: str) -> None:
        self._provisioner.hint(SessionChanged(session_id))
        self._feed.poke(session_id)

    def session_moved(self, session_id: str) -> None:
        self._samples.outdate()
        self._feed.poke(session_id)

    def node_observed(self, session_id: str) -> None:
        self._feed.poke(session_id)

    def node_turned(self, session_id: str) -> None:
        self._feed.poke(session_id)

    def payments_changed(self) -> None:
        self._verifier.hint(Reread())

    def outbox_changed(self) -> None:
        self._emitter.hint(OutboxGrew())

    def keys_counted(self, usable: int) -> None:
        self.usable_keys = usable
