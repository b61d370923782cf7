"""GET /relay/status of the gateway's operator's listener, from a real emitter and its ledger."""

from random import Random
from typing import Any

from sqlalchemy import Connection

from actors import Registry
from engram.gateway.app import ops_app
from engram.relay import RelayStatus, RetryPolicy, records
from engram.relay.actor import RELAY_EMITTER, RelayEmitter
from engram.relay.model import Answered, Outcome
from engram.relay.protocol import GetRelayStatus
from engram.relay.rules import decide
from tests.gateway.surface import running_gateway
from tests.http.asgi_client import AsgiClient
from tests.relay.samples import KEYRING, NOW, payload, queue


async def test_the_operators_listener_shows_how_the_relay_stands_and_the_public_one_does_not() -> None:
    async with running_gateway() as gateway:
        queue(gateway.ledger, 1, 2, 3, now=NOW)
        policy, rng = RetryPolicy(), Random(1)

        def attempted(c: Connection, outcome: Outcome, at: float) -> None:
            (entry,) = records.claim(c, at, KEYRING.sign)
            records.settle(c, entry, outcome, decide(entry.attempts, outcome, at, policy, rng), at)

        gateway.ledger.write_now(lambda c: attempted(c, Answered(200), NOW + 2.5))
        gateway.ledger.write_now(lambda c: attempted(c, Answered(422), NOW + 3))
        gateway.ledger.write_now(lambda c: attempted(c, Answered(503), NOW + 4))
        answer = await gateway.client.get(gateway.ops_url + "/relay/status")
        assert answer.status_code == 200
        shown = answer.json()
        assert shown.pop("last_ok_hash") == payload(1).output_hash
        assert shown == {
            "enabled": False,
            "outbox_pending": 2,
            "dlq_pending": 1,
            "dlq_abandoned": 1,
            "withdrawn": 0,
            "discarded": 0,
            "acknowledged_by": "",
            "receiver_pinned": False,
            "total_ok": 1,
            "total_failed": 2,
            "last_ok_at": NOW + 2.5,
            "oldest_pending_at": NOW + 3,
            "failures_in_a_row": 0,
            "not_queued": 0,
            "held_back": "",
            "not_anchored": "",
            "acknowledgement_lag_s": 2.5,
        }
        assert (await gateway.client.get(gateway.url + "/relay/status")).status_code == 404


async def test_an_emitter_that_is_down_is_no_error_of_the_server() -> None:
    async def relay() -> RelayStatus:
        return await Registry().ref(RelayEmitter, RELAY_EMITTER).call(GetRelayStatus())

    async def nothing() -> Any:
        return None

    async with running_gateway() as gateway:
        client = AsgiClient(ops_app(gateway.services, nothing, nothing, relay))
        answer = await client.get("/relay/status")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
        assert (await answer.get_json())["code"] == "unavailable"
