"""A receiver over its real surface and ledger: repeats, permits at the block, pages; the emitter on the other side."""

import json
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
import trio

from actors import ChildSpec, Registry, SupervisorSpec, open_system
from config.model import HttpSettings
from engram.clock import ManualClock, SeededIds, SystemClock
from engram.hotkeys import Keypair, verify
from engram.http.client import HttpClient
from engram.http.limits import Limiter
from engram.ledger import open_inline
from engram.ledger.inline import InlineLedger
from engram.relay import PayloadSigner, RetryPolicy
from engram.relay import records as outbox
from engram.relay.actor import EmitterPorts, RelayEmitter
from engram.relay.model import Answered, Outcome, Unknown
from engram.relay.receiver import Receiver
from engram.relay.rounds import RoundLosses
from engram.relay.rules import decide, output_hash, stable_ranking, stable_scores
from engram.relay.schemas import TAKEN
from engram.relay.signer import Keyring, Signed
from engram.telemetry.metrics import Metrics
from engram.xeris import records
from engram.xeris.app import xeris_app
from engram.xeris.receiver import XerisReceiver
from tests.http.asgi_client import AsgiClient
from tests.http.harness import serving
from tests.relay.samples import payload
from tests.relay.test_roots import root
from tests.xeris.test_judging import NOW, ONE, STRANGER, TWO, cosignature, memory, ranking, resigned, rooted, scores

NO_RANKING = output_hash(stable_ranking([]))
EMPTY = output_hash(stable_scores({}))
TEMPO = 360
OWN = Keypair.from_seed(bytes([9]) * 32)


class Bench:
    def __init__(self) -> None:
        self.ledger: InlineLedger = open_inline()
        self.clock = ManualClock(NOW)
        self.metrics = Metrics()
        self.judged: list[str] = []
        self.receiver = XerisReceiver(
            self.ledger,
            OWN,
            self.clock,
            gateways=frozenset({ONE.public_key}),
            netuids=(450,),
            quorum=1,
            keep_s=86_400.0,
            judged=self.judged.append,
        )
        self.app = xeris_app(
            self.receiver,
            self.ledger,
            settings=HttpSettings(requests_per_minute_per_ip=0),
            clock=self.clock,
            ids=SeededIds(1),
            metrics=self.metrics,
        )
        self.client = AsgiClient(self.app)

    async def permit(self, block: int, *keys: Keypair) -> None:
        held = [key.public_key for key in keys]
        await self.ledger.write(lambda c: records.note_permits(c, 450, block, held, TEMPO))

    async def post(self, document: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        answer = await self.client.post("/payloads", json=document)
        return answer.status_code, await answer.get_json()

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        answer = await self.client.get(path)
        return answer.status_code, await answer.get_json()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    made.ledger.close()


async def test_an_acknowledgement_is_signed_and_a_repeat_gets_the_same_one(bench: Bench) -> None:
    await bench.permit(1000, ONE)
    status, first = await bench.post(scores())
    assert (status, first["status"]) == (200, "accepted")
    message = f"engram-accepted:{first['signed_hash']}:{first['received_ms']}".encode()
    assert verify(OWN.public_key, message, bytes.fromhex(first["signature"][2:]))
    bench.clock.advance(100.0)
    assert await bench.post(scores()) == (200, first)
    assert bench.judged == ["accepted", "repeated"]
    assert await bench.ledger.read(records.count) == 1


async def test_another_payload_with_that_nonce_is_refused(bench: Bench) -> None:
    await bench.permit(1000, ONE)
    await bench.post(scores())
    status, refused = await bench.post(resigned(scores(round_ts=NOW + 1)))
    assert (status, refused["code"]) == (409, "nonce_used")


async def test_a_key_that_co_signed_one_output_of_a_block_cannot_sign_another(bench: Bench) -> None:
    await bench.permit(1000, ONE, TWO, STRANGER)
    assert (await bench.post(scores(cosigners=(TWO,))))[0] == 200
    other = resigned(scores(STRANGER) | {"nonce": "1000:6:1", "scores": {}, "output_hash": EMPTY}, STRANGER)
    both = other | {"cosignatures": [cosignature(TWO, other["signed_hash"])]}
    status, refused = await bench.post(both)
    assert (status, refused["code"]) == (409, "equivocation")
    assert (await bench.post(other))[0] == 200, "without the key that had signed"


async def test_a_key_signs_one_ranking_of_a_block_whoever_proposes_it(bench: Bench) -> None:
    await bench.permit(1000, ONE, TWO)
    assert (await bench.post(ranking(TWO)))[0] == 200
    other = {name: value for name, value in ranking().items() if name != "cosignatures"}
    other |= {"nonce": "1000:6:1", "ranking": [], "output_hash": NO_RANKING, "validator_hotkey": TWO.ss58}
    status, refused = await bench.post(resigned(other, TWO))
    assert (status, refused["code"]) == (409, "equivocation")
    assert (await bench.get("/intelligence?kind=ranking"))[1]["items"][0]["signers"] == 2


async def test_permits_are_those_of_the_payload_s_block(bench: Bench) -> None:
    status, refused = await bench.post(scores())
    assert (status, refused["code"]) == (425, "permits_unknown")
    await bench.permit(900, TWO)
    await bench.permit(1000, ONE)
    await bench.permit(1100, TWO)
    assert (await bench.post(scores()))[0] == 200
    status, refused = await bench.post(scores(STRANGER))
    assert (status, refused["code"]) == (422, "no_permit")


async def test_a_block_between_two_records_with_other_permits_is_not_guessed(bench: Bench) -> None:
    await bench.permit(900, TWO)
    await bench.permit(1100, ONE)
    assert (await bench.post(scores()))[1]["code"] == "permits_unknown"


@pytest.mark.parametrize(("missed", "is_known"), [(TEMPO - 1, True), (TEMPO, False), (100_000, False)])
async def test_the_permits_of_blocks_that_were_missed_are_not_guessed_from_equal_ones_at_both_ends(
    bench: Bench, missed: int, is_known: bool
) -> None:
    """Down over two ends of an epoch, at the first of which the permit went and at the second of which it came back."""
    await bench.permit(900, ONE)
    await bench.permit(950, ONE)
    await bench.permit(951 + missed, ONE)
    for block, known in ((950, True), (1_000, is_known), (951 + missed, True)):
        found = await bench.ledger.read(lambda c, b=block: records.permits_at(c, 450, b))  # type: ignore[misc]
        assert found == (frozenset({ONE.public_key}) if known else None), block
    status, answer = await bench.post(scores())
    assert answer.get("code", "") == ("" if is_known else "permits_unknown")
    assert status == (200 if is_known else 425)


async def test_blocks_with_the_same_permits_share_a_row(bench: Bench) -> None:
    for block in (900, 950, 1050):
        await bench.permit(block, ONE)
    assert await bench.ledger.read(lambda c: records.permits_at(c, 450, 1000)) == frozenset({ONE.public_key})
    assert await bench.ledger.read(lambda c: records.permits_at(c, 450, 1051)) is None
    assert await bench.ledger.read(lambda c: records.permits_at(c, 450, 899)) is None


async def test_what_was_accepted_is_served_in_pages_and_by_hash(bench: Bench) -> None:
    await bench.permit(1000, ONE)
    _, first = await bench.post(scores())
    await bench.post(memory())
    status, page = await bench.get("/intelligence?limit=1")
    assert [item["kind"] for item in page["items"]] == ["memory"]
    assert [item["kind"] for item in (await bench.get(f"/intelligence?before={page['next']}"))[1]["items"]] == [
        "scores"
    ]
    assert [item["kind"] for item in (await bench.get("/intelligence?kind=scores"))[1]["items"]] == ["scores"]
    status, one = await bench.get(f"/intelligence/{first['signed_hash']}")
    assert (status, one["document"], one["acknowledgement"], one["state"]) == (
        200,
        scores_as_sent(one),
        first,
        "accepted",
    )
    assert (await bench.get("/intelligence/" + "0" * 64))[0] == 404
    assert (await bench.get("/intelligence?limit=x"))[0] == 422


def scores_as_sent(found: dict[str, Any]) -> dict[str, Any]:
    sent = scores()
    return sent | {"signature": found["document"]["signature"]}  # signatures are randomized


async def test_it_says_which_schemas_it_takes_and_takes_no_others(bench: Bench) -> None:
    status, found = await bench.get("/schemas")
    assert (status, {each["kind"]: each["versions"] for each in found["schemas"]}) == (
        200,
        {kind: list(versions) for kind, versions in TAKEN.items()},
    )
    bench.receiver.taken = {"scores": ("engram-v1",), "memory": ("engram-v1",)}
    status, found = await bench.get("/schemas")
    assert [each["versions"] for each in found["schemas"]] == [["engram-v1"]] * 2
    status, refused = await bench.post(rooted(root()))
    assert (status, refused["code"]) == (422, "schema")
    assert "GET /schemas" in refused["error"]
    assert (await bench.post(memory()))[0] == 200


async def test_what_an_original_emitter_sends_is_taken_where_one_signature_is_enough(bench: Bench) -> None:
    """Its body is that of `scores`, with no header but the content's type; it counts any 2xx as taken."""
    await bench.permit(1000, ONE)
    answer = await bench.client.post(
        "/payloads", data=json.dumps(scores(), separators=(",", ":")), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 200
    bench.receiver.quorum = 2
    await bench.permit(2000, ONE)
    later = resigned(scores() | {"block": 2000, "nonce": "2000:5:1"})
    assert (await bench.post(later))[1]["code"] == "quorum"


async def test_there_is_no_schema_of_another_name(bench: Bench) -> None:
    assert (await bench.get("/schemas/wisdom"))[0] == 404


async def test_old_payloads_are_forgotten(bench: Bench) -> None:
    await bench.post(memory())
    assert await bench.ledger.write(lambda c: records.purge(c, NOW + 1)) == 1
    assert await bench.ledger.read(records.count) == 0


async def test_what_the_emitter_sends_is_accepted_once(bench: Bench) -> None:
    """The relay's own emitter over a real socket: an answer that is lost brings a repeat, and one payload."""
    clock, registry, sender = SystemClock(), Registry(), open_inline()
    sender.write_now(lambda c: outbox.enqueue(c, payload(1), clock.now(), signer=ONE.ss58))
    sender.write_now(lambda c: outbox.enqueue(c, payload(2), clock.now(), signer=ONE.ss58))
    lost: list[str] = []

    class Losing:
        """Loses the first answer."""

        async def submit(self, signed: Signed) -> Outcome:
            outcome = await receiver.submit(signed)
            lost.append(signed.signed_hash)
            return Unknown("the answer was lost") if len(lost) == 1 else outcome

    http = HttpClient()
    metrics = Metrics()
    async with serving(bench.app) as running:
        receiver = Receiver(http, f"{running.address.url}/payloads", 5.0)
        ports = EmitterPorts(
            ledger=sender,
            receiver=Losing(),
            keyring=Keyring(PayloadSigner.of(ONE)),
            policy=RetryPolicy(backoff_min_s=0.05, backoff_max_s=0.1),
            clock=clock,
            rng=Random(1),
            metrics=metrics,
            losses=RoundLosses(metrics),
        )
        spec = SupervisorSpec("root", [ChildSpec("relay", lambda: RelayEmitter(ports), name="relay")])
        async with open_system(spec, registry=registry):
            with trio.fail_after(20):
                while sender.write_now(lambda c: outbox.count(c, "pending")):  # noqa: ASYNC110  # no event crosses
                    await trio.sleep(0.02)
    await http.aclose()
    found = await bench.ledger.read(lambda c: records.page(c, 450, None, 10, 10**6)[0])
    assert [each.block for each in found] == [1002, 1001]
    assert bench.judged == ["accepted", "repeated", "accepted"]
    sender.close()


async def test_a_key_that_submits_too_much_is_slowed_down_and_its_repeats_are_not(bench: Bench) -> None:
    """What others send again of what it sent must not use up its rate."""
    bench.receiver._limiter = Limiter(60, 1, bench.clock.monotonic)
    await bench.permit(1000, ONE, TWO)
    assert (await bench.post(scores()))[0] == 200
    status, refused = await bench.post(memory())
    assert (status, refused["code"]) == (429, "too_many")
    assert (await bench.post(scores()))[0] == 200, "a repeat"
    assert (await bench.post(scores(TWO)))[0] == 200, "another key"
    bench.clock.advance(1.1)
    assert (await bench.post(memory()))[0] == 200


async def test_a_clock_that_runs_ahead_forgets_no_nonce(bench: Bench) -> None:
    await bench.permit(1000, ONE)
    _, first = await bench.post(scores())
    keep_s, ahead = 86_400.0, NOW + 40 * 86_400.0
    before = await bench.ledger.read(lambda c: records.kept_from(c, ahead, keep_s))
    assert await bench.ledger.write(lambda c: records.purge(c, before)) == 0
    assert await bench.post(scores()) == (200, first)
    assert await bench.ledger.read(lambda c: records.kept_from(c, NOW + 10, keep_s)) == NOW + 10 - keep_s
    await bench.ledger.write(lambda c: records.purge(c, NOW + 1))
    assert await bench.ledger.read(lambda c: records.kept_from(c, ahead, keep_s)) == ahead - keep_s


async def test_a_gateway_s_block_that_was_not_read_yet_is_looked_for_on_the_chain(bench: Bench) -> None:
    heads = [6, 7]

    async def read_head() -> int:
        return heads.pop(0)

    bench.receiver._finalized, bench.receiver._read_head = lambda netuid: 5, read_head
    status, refused = await bench.post(memory())
    assert (status, refused["code"]) == (425, "not_final")
    assert (await bench.post(memory()))[0] == 200
    assert heads == []


async def test_who_names_no_subnet_means_the_first_that_is_served(bench: Bench) -> None:
    await bench.permit(1000, ONE)
    await bench.post(scores())
    assert len((await bench.get("/intelligence"))[1]["items"]) == 1
    bench.receiver.netuid = 12
    assert (await bench.get("/intelligence"))[1]["items"] == []


async def test_a_dead_letter_that_is_parked_again_keeps_its_one_marker_and_its_stream_goes_on(bench: Bench) -> None:
    """After a week the emitter has forgotten the marker and makes another, of the same nonce: the receiver has one."""
    sent: InlineLedger = open_inline()
    keyring, day = Keyring(PayloadSigner.of(ONE)), 86_400.0

    async def attempt(at: float, *, breaks: bool = False) -> tuple[str, int]:
        """The next entry: its kind, and the answer to it."""
        (entry,) = sent.write_now(lambda c: outbox.claim(c, at, keyring.sign))
        status = 400 if breaks else (await bench.post(json.loads(entry.signed or b"")))[0]
        outcome = Answered(status)
        decided = decide(entry.attempts, outcome, at, RetryPolicy(), Random(1))
        sent.write_now(lambda c: outbox.settle(c, entry, outcome, decided, at))
        return entry.kind, status

    def count(state: str) -> int:
        return sent.read_now(lambda c: outbox.count(c, state))

    for number in (1, 2):
        sent.write_now(lambda c, n=number: outbox.enqueue(c, payload(n, NOW), NOW, signer=ONE.ss58))  # type: ignore[misc]
    assert await attempt(NOW, breaks=True) == ("memory", 400)
    assert await attempt(NOW) == ("gap", 200)
    sent.write_now(lambda c: outbox.dlq_retry(c, 1, NOW))
    assert await attempt(NOW, breaks=True) == ("memory", 400)
    assert await attempt(NOW) == ("memory", 200), "no second marker while the first is known"
    bench.clock.advance(8 * day)
    later = bench.clock.now()
    sent.write_now(lambda c: outbox.purge(c, later))
    sent.write_now(lambda c: outbox.dlq_retry(c, 1, later))
    sent.write_now(lambda c: outbox.enqueue(c, payload(3, later), later, signer=ONE.ss58))
    assert await attempt(later, breaks=True) == ("memory", 400)
    assert await attempt(later) == ("gap", 409)
    assert await attempt(later) == ("memory", 200)
    assert (count("pending"), count("parked"), count("discarded")) == (0, 1, 1)
    kept = await bench.ledger.read(lambda c: records.page(c, 450, "gap", 10, 10**6))
    assert len(kept[0]) == 1
    sent.close()
