"""Key shares, attestations, conversations, batches, copies: what they take, give and refuse."""

import base64
import struct
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engram.chain import Axon, Subnets
from engram.clock import ManualClock
from engram.hotkeys import Keypair, PublicKey, miner_scheme, ss58, verify
from engram.memory.errors import TruthUnreadable
from engram.memory.proof import keyed_tree, proofs
from engram.memory.store.attestations import Attestations
from engram.memory.store.notebook_db import Notebook
from engram.memory.upkeep import export_pages
from engram.miner import endpoints
from engram.miner.endpoints import Answer, Service
from engram.miner.stakes import SyncedSubnet
from tests.chain.samples import key, metagraph, neuron
from tests.memory.stores import DIMENSION
from tests.miner.nodes import CONTROLLER, NODE, STAMPS, STRANGER, encoded, in_namespace, serving, signed

UP = [1.0] + [0.0] * (DIMENSION - 1)
SHARE = {"share_index": 2, "share_hex": "c0ffee", "threshold": 2, "total": 3}


def opened(answer: Answer) -> dict[str, object]:
    assert answer.status == 200, answer
    return {key: value for key, value in answer.body.items() if key != "_p"}


async def deposit(service: Service, keypair: Keypair, name: str, **changed: object) -> Answer:
    fields: dict[str, Any] = {**SHARE, **changed}
    body = miner_scheme.sign_namespace_request(keypair, "KeyShareSynapse", name, fields, STAMPS.next())
    return await endpoints.put_key_share(service, encoded(body))


async def fetch(service: Service, keypair: Keypair, name: str) -> Answer:
    return await endpoints.get_key_share(service, encoded(in_namespace(keypair, name)))


async def test_a_share_is_kept_on_a_node_that_never_saw_the_namespace(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        assert opened(await deposit(service, STRANGER, "far_away")) == {"stored": True}
        assert opened(await fetch(service, STRANGER, "far_away")) == SHARE
        assert (await fetch(service, CONTROLLER, "far_away")).status == 404
        assert (await fetch(service, STRANGER, "elsewhere")).status == 404


async def test_no_share_is_overwritten_in_silence(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        assert (await deposit(service, STRANGER, "mine")).status == 200
        assert (await deposit(service, STRANGER, "mine")).status == 200
        refused = await deposit(service, STRANGER, "mine", share_hex="dead")
        assert (refused.status, refused.body["code"]) == (409, "share_exists")
        sniffed = encoded({**SHARE, **in_namespace(STRANGER, "mine"), "share_hex": "dead", "replace": True})
        assert (await endpoints.put_key_share(service, sniffed)).status == 401
        assert opened(await fetch(service, STRANGER, "mine")) == SHARE
        assert (await deposit(service, STRANGER, "mine", share_hex="dead", replace=True)).status == 200
        assert opened(await fetch(service, STRANGER, "mine"))["share_hex"] == "dead"


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"share_index": 0}, 400),
        ({"share_index": 4}, 400),
        ({"share_index": True}, 400),
        ({"threshold": 4}, 400),
        ({"threshold": 1}, 400),
        ({"total": 256}, 400),
        ({"share_hex": "abc"}, 400),
        ({"share_hex": "zz"}, 400),
        ({"share_hex": ""}, 400),
        ({"share_hex": "ab" * 5_000}, 400),
        ({"replace": 1}, 400),
    ],
)
async def test_a_bad_share_is_refused(tmp_path: Path, changed: dict[str, object], status: int) -> None:
    async with serving(tmp_path) as service:
        assert (await deposit(service, STRANGER, "mine", **changed)).status == status
        assert (await endpoints.put_key_share(service, encoded(SHARE))).status == 400
        assert (await endpoints.put_key_share(service, encoded({**SHARE, "namespace": "mine"}))).status == 403
        assert (await endpoints.get_key_share(service, encoded({"namespace": "mine"}))).status == 403


async def test_nobody_takes_the_room_that_the_controllers_shares_and_attestations_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engram.memory.store.key_shares.MAX_SHARES", 2)
    monkeypatch.setattr("engram.memory.store.attestations.MAX_ATTESTATIONS", 2)
    async with serving(tmp_path, tenants="anyone") as service:
        outcomes = [await deposit(service, STRANGER, name) for name in ("one", "two", "three")]
        assert [outcome.body.get("code") for outcome in outcomes] == [None, None, "over_quota"]
        assert (await deposit(service, CONTROLLER, "mine")).status == 200
        outcomes = [await endpoints.attest(service, attested(STRANGER, name)) for name in ("one", "two", "three")]
        assert [outcome.body.get("code") for outcome in outcomes] == [None, None, "over_quota"]
        assert (await endpoints.attest(service, attested(CONTROLLER, "mine"))).status == 200


class Rich:
    """A subnet in which stakes are as told."""

    block = 7

    def __init__(self) -> None:
        self.stakes: dict[PublicKey, float] = {}

    def uid(self, hotkey: PublicKey) -> int | None:
        return 3

    def stake_tao(self, hotkey: PublicKey) -> float | None:
        return self.stakes.get(hotkey)

    def neurons(self) -> list[dict[str, object]]:
        return [{"uid": 3, "hotkey": NODE.ss58, "ip": "1.2.3.4", "port": 8091, "incentive": 0.5}]


def attested(keypair: Keypair, name: str, now_ms: int | None = None) -> bytes:
    return encoded(miner_scheme.sign_attestation(keypair, name, now_ms or time.time_ns() // 10**6))


async def test_a_namespace_bears_the_tier_of_its_owners_stake_as_it_is_now(tmp_path: Path) -> None:
    subnet = Rich()
    async with serving(tmp_path, subnet=subnet, tenants="anyone") as service:
        assert endpoints.health(service).body["uid"] == endpoints.stats(service).body["uid"] == 3
        assert (await endpoints.attestation(service, "notes")).body == {
            "namespace": "notes",
            "trust_tier": "anonymous",
            "attested": False,
        }
        subnet.stakes[STRANGER.public_key] = 150.0
        made = opened(await endpoints.attest(service, attested(STRANGER, "notes")))
        assert made == {"ok": True, "namespace": "notes", "trust_tier": "verified", "stake_tao": 150.0}
        assert (await endpoints.attest(service, attested(CONTROLLER, "notes"))).status == 403
        subnet.stakes[STRANGER.public_key] = 1_000.0
        shown = (await endpoints.attestation(service, "notes")).body
        assert (shown["trust_tier"], shown["owner_hotkey"], shown["attested"]) == ("sovereign", STRANGER.ss58, True)
        stored = signed(STRANGER, "IngestSynapse", {"raw_embedding": UP, "namespace": "notes"})
        assert (await endpoints.ingest(service, stored)).body["error"] is None
        query = signed(STRANGER, "QuerySynapse", {"query_vector": UP, "namespace": "notes"})
        results: Any = (await endpoints.query(service, query)).body["results"]
        assert [hit["trust_tier"] for hit in results] == ["sovereign"]
        reloaded = Attestations(service.notebook)
        await reloaded.load()
        assert reloaded.get("notes") == service.attestations.get("notes")
        assert (await endpoints.metagraph(service)).body["neurons"] == subnet.neurons()
        assert (endpoints.stats(service).body["block"], endpoints.stats(service).body["uid"]) == (7, 3)


def attested_as_another(name: str) -> bytes:
    return attested(CONTROLLER, "notes").replace(b'"notes"', f'"{name}"'.encode())


async def test_a_bad_attestation_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        stale = time.time_ns() // 10**6 - 120_000
        for body, status in (
            (b"{}", 400),
            (b"[]", 400),
            (encoded({"namespace": 5}), 400),
            (encoded({"namespace": "n"}), 400),
            (attested(CONTROLLER, "not-a-name"), 400),
            (attested(STRANGER, "notes"), 403),
            (attested(CONTROLLER, "notes", stale), 401),
            (attested_as_another("other"), 401),
        ):
            answer = await endpoints.attest(service, body)
            assert (answer.status, bool(answer.body["error"])) == (status, True), body


def chat_parameters(keypair: Keypair, endpoint: str, **fields: Any) -> dict[str, str]:
    body = miner_scheme.sign_body(keypair, endpoint, fields, STAMPS.next())
    return {key: str(value) for key, value in body.items() if key != "user_id"}


async def test_conversations_are_for_whoever_signed_them(tmp_path: Path) -> None:
    said = [{"role": "user", "content": f"{i}", "ts": i} for i in range(250)]
    async with serving(tmp_path, tenants="anyone") as service:
        body = signed(STRANGER, "SaveChat", {"user_id": "u", "conv_id": "c", "messages": said})
        assert opened(await endpoints.save_chat(service, body))["count"] == 200
        make = signed(STRANGER, "MakeConversation", {"user_id": "u", "conv_id": "d", "title": "D"})
        assert opened(await endpoints.make_conversation(service, make))["title"] == "D"
        parameters = chat_parameters(STRANGER, "chat-history", user_id="u", conv_id="c")
        told = opened(await endpoints.chat_history(service, "u", parameters))
        messages: Any = told["messages"]
        assert [message.content for message in messages] == [str(i) for i in range(50, 250)]
        assert (await endpoints.chat_history(service, "other", parameters)).status == 401
        assert (await endpoints.chat_history(service, "u", {"conv_id": "c"})).status == 401
        others = chat_parameters(CONTROLLER, "chat-history", user_id="u", conv_id="c")
        assert opened(await endpoints.chat_history(service, "u", others))["messages"] == []
        listed: Any = opened(
            await endpoints.list_conversations(service, "u", chat_parameters(STRANGER, "conversations", user_id="u"))
        )["conversations"]
        assert {each.conv_id for each in listed} == {"c", "d"}
        renamed = signed(STRANGER, "RenameConversation", {"user_id": "u", "conv_id": "d", "title": "E"})
        assert (await endpoints.rename_conversation(service, "c", renamed)).status == 401
        renamed = signed(STRANGER, "RenameConversation", {"user_id": "u", "conv_id": "d", "title": "F"})
        assert opened(await endpoints.rename_conversation(service, "d", renamed))["title"] == "F"
        foreign = signed(CONTROLLER, "DeleteConversation", {"user_id": "u", "conv_id": "d"})
        assert (await endpoints.delete_conversation(service, "d", foreign)).status == 404
        forget = signed(STRANGER, "DeleteConversation", {"user_id": "u", "conv_id": "d"})
        assert opened(await endpoints.delete_conversation(service, "d", forget))["deleted"] is True
        again = signed(STRANGER, "RenameConversation", {"user_id": "u", "conv_id": "d", "title": "x"})
        assert (await endpoints.rename_conversation(service, "d", again)).status == 404


@pytest.mark.parametrize(
    "fields",
    [
        {"user_id": ""},
        {"user_id": 5, "messages": []},
        {"user_id": "\ud800", "messages": []},
        {"user_id": "u", "messages": {}},
        {"user_id": "u", "messages": [5]},
        {"user_id": "u", "messages": [{"role": "", "content": "x"}]},
        {"user_id": "u", "messages": [{"role": "user", "content": None}]},
        {"user_id": "u", "messages": [{"role": "user", "content": "x" * 40_000}]},
        {"user_id": "u", "messages": [{"role": "user", "content": "x", "ts": True}]},
        {"user_id": "u", "messages": [{"role": "user", "content": "x", "ts": "\ud800"}]},
        {"user_id": "u", "messages": [{"role": "user", "content": "x", "ts": 2**64}]},
        {"user_id": "u", "conv_id": ["c"], "messages": []},
        {"user_id": "u" * 200, "messages": []},
    ],
)
async def test_a_bad_conversation_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    async with serving(tmp_path) as service:
        answer = await endpoints.save_chat(service, signed(CONTROLLER, "SaveChat", fields))
        assert (answer.status, answer.body["code"]) == (400, "malformed")
        if isinstance(fields["user_id"], str) and fields["user_id"] == "u":
            titled = signed(CONTROLLER, "MakeConversation", {**fields, "conv_id": "c", "title": 5})
            assert (await endpoints.make_conversation(service, titled)).status == 400


async def test_a_message_is_stamped_when_it_is_saved_first(tmp_path: Path) -> None:
    clock = ManualClock()
    async with serving(tmp_path, clock=clock) as service:

        async def kept(*said: dict[str, Any]) -> list[Any]:
            stamp = int(clock.now() * 1000)
            chat = {"user_id": "u", "conv_id": "c", "messages": list(said)}
            assert (await endpoints.save_chat(service, signed(CONTROLLER, "SaveChat", chat, stamp))).status == 200
            fields = miner_scheme.sign_body(CONTROLLER, "chat-history", {"user_id": "u", "conv_id": "c"}, stamp)
            asked = {name: str(value) for name, value in fields.items() if name != "user_id"}
            held: Any = (await endpoints.chat_history(service, "u", asked)).body["messages"]
            return [message.ts for message in held]

        hi, bye = {"role": "user", "content": "hi"}, {"role": "user", "content": "bye", "ts": None}
        first_s = clock.now()
        assert await kept(hi) == [first_s]
        clock.advance(10.0)
        assert await kept(hi, {"role": "user", "content": "so", "ts": "noon"}, bye, hi) == [
            *(first_s, "noon"),
            *(first_s + 10.0, first_s + 10.0),
        ]


async def test_a_stranger_keeps_no_conversation_on_a_node_of_one_controller(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        body = signed(STRANGER, "SaveChat", {"user_id": "u", "messages": []})
        assert (await endpoints.save_chat(service, body)).status == 403
        assert (await endpoints.save_chat(service, encoded({"user_id": "u", "messages": []}))).status == 401


async def test_a_batch_gives_the_cids_of_single_ingests_and_a_result_for_each(tmp_path: Path) -> None:
    packed = base64.b64encode(struct.pack(f"<{DIMENSION}f", *UP)).decode()
    items: list[Any] = [
        {"text": "one", "metadata": {"n": 1}},
        {"raw_embedding": UP},
        {"raw_embedding_b64": packed, "metadata": {"b": True}},
        {"raw_embedding": [1.0]},
        {"raw_embedding_b64": "???"},
        {"raw_embedding_b64": packed[:8]},
        {"raw_embedding_b64": packed, "raw_embedding": UP},
        {"text": " "},
        5,
    ]
    async with serving(tmp_path) as service:
        answer = await endpoints.ingest_batch(service, encoded({"items": items}))
        results: Any = answer.body["results"]
        assert (answer.status, answer.body["stored"]) == (200, 3)
        for item, result in zip(items[:3], results, strict=False):
            single = (await endpoints.ingest(service, encoded(item))).body
            assert single == result
        assert all(result["cid"] is None and result["error"] for result in results[3:])
        assert endpoints.health(service).body["vectors"] == 3
        found: Any = (await endpoints.query(service, encoded({"query_vector_b64": packed}))).body["results"]
        assert len(found) == 3


@pytest.mark.parametrize(
    "fields", [{}, {"items": []}, {"items": 5}, {"items": [{}] * 257}], ids=["none", "empty", "number", "257"]
)
async def test_what_is_no_batch_is_a_400_and_stores_nothing(tmp_path: Path, fields: dict[str, Any]) -> None:
    async with serving(tmp_path) as service:
        assert (await endpoints.ingest_batch(service, encoded(fields))).status == 400
        assert endpoints.health(service).body["vectors"] == 0


async def test_a_batch_is_stored_in_the_namespace_it_names(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        items = [{"text": f"text {i}"} for i in range(80)]
        body = signed(CONTROLLER, "IngestBatch", {"items": items, "namespace": "notes"})
        assert (await endpoints.ingest_batch(service, body)).body["stored"] == 80
        assert endpoints.health(service).body["vectors"] == 0
        listed = await endpoints.listing(service, encoded({**in_namespace(CONTROLLER, "notes"), "limit": 200}))
        assert listed.body["count"] == 80


async def test_a_copy_of_a_public_record_can_be_had_with_its_vector(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        cid = (await endpoints.ingest(service, encoded({"raw_embedding": UP, "metadata": {"a": "b"}}))).body["cid"]
        copied = opened(await endpoints.repair(service, encoded({"cid": cid})))
        assert copied == {"cid": cid, "embedding": UP, "metadata": {"a": "b"}}
        private = signed(CONTROLLER, "IngestSynapse", {"text": "mine", "namespace": "notes"})
        secret = (await endpoints.ingest(service, private)).body["cid"]
        assert (await endpoints.repair(service, encoded({"cid": secret}))).status == 404
        assert (await endpoints.repair(service, b"{}")).status == 400


async def test_the_controller_takes_everything_along(tmp_path: Path) -> None:
    async with serving(tmp_path, tenants="anyone") as service:
        await endpoints.ingest(service, encoded({"text": "public"}))
        await endpoints.ingest(service, signed(CONTROLLER, "IngestSynapse", {"text": "mine", "namespace": "notes"}))
        await endpoints.ingest(service, signed(STRANGER, "IngestSynapse", {"text": "theirs", "namespace": "notes"}))
        texts: list[str] = []
        after: Any = 0
        while after is not None:
            page = opened(await endpoints.export(service, signed(CONTROLLER, "export", {"after": after, "limit": 1})))
            records: Any = page["records"]
            texts += [record["text"] for record in records]
            assert all(len(base64.b64decode(record["embedding_b64"])) == 4 * DIMENSION for record in records)
            after = page["next"]
        assert texts == ["public", "mine"]


async def test_an_export_is_for_the_controller_alone(tmp_path: Path) -> None:
    async with serving(tmp_path, tenants="anyone") as service:
        await endpoints.ingest(service, signed(STRANGER, "IngestSynapse", {"text": "theirs", "namespace": "notes"}))
        for body, status in ((b"{}", 401), (signed(STRANGER, "export", {}), 403)):
            answer = await endpoints.export(service, body)
            assert (answer.status, "records" in answer.body) == (status, False)


@pytest.mark.parametrize(
    "fields", [{"after": -1}, {"after": "x"}, {"limit": True}, {"limit": -1}, {"kind": "everything"}]
)
async def test_a_page_of_an_export_that_cannot_be_is_a_400(tmp_path: Path, fields: dict[str, Any]) -> None:
    async with serving(tmp_path) as service:
        assert (await endpoints.export(service, signed(CONTROLLER, "export", fields))).status == 400


async def test_the_second_form_of_a_proof_needs_the_bytes_and_binds_everything(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        cid = str((await endpoints.ingest(service, encoded({"raw_embedding": UP}))).body["cid"])
        expires = int(time.time()) + 60
        asked = {"cid": cid, "nonce_hex": "11" * 32, "expires_at": expires, "version": 2}
        given: Any = opened(await endpoints.challenge(service, encoded({**asked, "validator_hotkey_hex": "aa" * 32})))
        root = bytes.fromhex(given["root_hex"])
        bound = proofs.Challenge(
            NODE.public_key, b"\xaa" * 32, b"\x11" * 32, cid, "__public__", root, given["count"], expires
        )
        embedding = struct.pack(f"<{DIMENSION}f", *UP)
        assert proofs.verify_possession(given["proof"], embedding, bound)
        signed_text = proofs.transcript(bound) + bytes.fromhex(given["proof"])
        assert verify(NODE.public_key, signed_text, bytes.fromhex(given["signature"][2:]))
        assert keyed_tree.verify(given["inclusion"], cid, root) == proofs.embedding_hash(embedding)
        assert "embedding_hash" not in given


@pytest.mark.parametrize("changed", [{"version": 3}, {"version": True}, {"expires_at": 10_000}, {"expires_at": 1e300}])
async def test_a_challenge_of_no_version_or_of_another_time_is_a_400(tmp_path: Path, changed: dict[str, Any]) -> None:
    async with serving(tmp_path) as service:
        cid = str((await endpoints.ingest(service, encoded({"raw_embedding": UP}))).body["cid"])
        now = int(time.time())
        asked = {"cid": cid, "nonce_hex": "11" * 32, "expires_at": now + 60, "version": 2}
        assert (await endpoints.challenge(service, encoded(asked))).status == 200
        if changed.get("expires_at") == 10_000:
            changed = {"expires_at": now + 10_000}
        assert (await endpoints.challenge(service, encoded({**asked, **changed}))).status == 400


async def test_commitments_of_a_namespace_and_of_everything_are_for_their_owners(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        await endpoints.ingest(service, signed(CONTROLLER, "IngestSynapse", {"text": "mine", "namespace": "notes"}))
        mine = {key: str(value) for key, value in in_namespace(CONTROLLER, "notes").items()}
        own = opened(await endpoints.commitment(service, mine))
        assert (own["count"], str(own["signed"]).startswith("engram-commitment:keyed-1:notes:")) == (1, True)
        others = {key: str(value) for key, value in in_namespace(STRANGER, "notes").items()}
        assert (await endpoints.commitment(service, others)).status == 403
        assert (await endpoints.commitment(service, {"scope": "all"})).status == 401
        everything = chat_parameters(CONTROLLER, "commitment", scope="all")
        assert opened(await endpoints.commitment(service, everything))["count"] == 1


async def test_a_commitment_of_no_scope_or_form_is_a_400(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        await endpoints.ingest(service, signed(CONTROLLER, "IngestSynapse", {"text": "mine", "namespace": "notes"}))
        mine = {key: str(value) for key, value in in_namespace(CONTROLLER, "notes").items()}
        for parameters in ({**mine, "form": "legacy"}, {"scope": "some"}, {"form": "new"}):
            assert (await endpoints.commitment(service, parameters)).status == 400


def test_a_damaged_notebook_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "notebook.db"
    Notebook.open(path).close()
    path.write_bytes(b"not a database, but long enough to be looked at as one" * 100)
    with pytest.raises(TruthUnreadable, match=r"notebook\.db"):
        Notebook.open(path)


async def test_noise_is_off_and_when_on_moves_private_vectors_only_and_says_what_it_protects(tmp_path: Path) -> None:
    (tmp_path / "quiet").mkdir()
    async with serving(tmp_path / "quiet") as service:
        assert endpoints.health(service).body["noise"] is None
    async with serving(tmp_path, noise_sigma=0.02) as service:
        told: Any = endpoints.health(service).body["noise"]
        assert (told.sigma, round(told.epsilon), told.delta) == (0.02, 5426, 1e-5)
        cids = set()
        stamp = time.time_ns() // 10**6
        for later_ms in (0, 1):
            fields = {"raw_embedding": UP, "namespace": "notes"}
            body = signed(CONTROLLER, "IngestSynapse", fields, stamp + later_ms)
            cids.add((await endpoints.ingest(service, body)).body["cid"])
        assert len(cids) == 2
        query = signed(CONTROLLER, "QuerySynapse", {"query_vector": UP, "namespace": "notes"})
        results: Any = (await endpoints.query(service, query)).body["results"]
        assert all(0.9 < hit["score"] < 1.0 for hit in results)
        public = (await endpoints.ingest(service, encoded({"raw_embedding": UP}))).body["cid"]
        found: Any = (await endpoints.query(service, encoded({"query_vector": UP}))).body["results"]
        assert (found[0]["cid"], found[0]["score"]) == (public, 1.0)


async def test_stakes_are_those_of_the_subnet_as_last_read() -> None:
    subnets = Subnets(ManualClock(), (450,), 60.0)
    subnet = SyncedSubnet(subnets, 450)
    assert (subnet.block, subnet.uid(key(7)), subnet.stake_tao(key(7)), subnet.neurons()) == (None, None, None, [])
    there = neuron(0, 7, stake_rao=150 * 10**9, axon=Axon("1.2.3.4", 8091, 1, 4, 9))
    subnets.publish(metagraph(there, neuron(1, 8)), [])
    assert (subnet.block, subnet.uid(key(7)), subnet.stake_tao(key(7))) == (1100, 0, 150.0)
    assert subnet.uid(key(9)) is None
    told = subnet.neurons()
    assert told[0] == {"uid": 0, "hotkey": ss58.encode(key(7)), "ip": "1.2.3.4", "port": 8091, "incentive": 0.0}
    assert (told[1]["ip"], told[1]["port"]) == ("0.0.0.0", 0)
    assert subnet.neurons() is told


async def test_a_tier_follows_the_stake_that_the_chain_tells(tmp_path: Path) -> None:
    subnets = Subnets(ManualClock(), (450,), 60.0)

    def staked(tao: float) -> None:
        there = msgspec.structs.replace(neuron(0, 7, stake_rao=int(tao * 10**9)), hotkey=STRANGER.public_key)
        subnets.publish(metagraph(there, neuron(1, 8)), [])

    async with serving(tmp_path, subnet=SyncedSubnet(subnets, 450), tenants="anyone") as service:
        unknown = opened(await endpoints.attest(service, attested(STRANGER, "notes")))
        assert (unknown["trust_tier"], unknown["stake_tao"]) == ("anonymous", 0.0)  # nothing is known of the chain yet
        for tao, tier in (
            (0.9, "anonymous"),
            (1, "community"),
            (100, "verified"),
            (1_000, "sovereign"),
            (2, "community"),
        ):
            staked(tao)
            told = (await endpoints.attestation(service, "notes")).body
            assert (told["trust_tier"], told["stake_tao"]) == (tier, tao)
        subnets.publish(metagraph(neuron(1, 8)), [])  # deregistered
        assert (await endpoints.attestation(service, "notes")).body["trust_tier"] == "anonymous"


async def test_an_export_takes_pages_of_every_kind_and_of_the_controller_alone(tmp_path: Path) -> None:
    async with serving(tmp_path, tenants="anyone") as service:
        for keypair in (CONTROLLER, STRANGER):
            assert (await deposit(service, keypair, "vault")).status == 200
            assert (await endpoints.attest(service, attested(keypair, f"of_{keypair.ss58[-5:]}"))).status == 200
            for number in range(3):
                fields = {
                    "user_id": "u",
                    "conv_id": f"c{number}",
                    "messages": [{"role": "user", "content": "x" * 30_000}],
                }
                assert (await endpoints.save_chat(service, signed(keypair, "SaveChat", fields))).status == 200
        kinds = {"conversation": 3, "key_share": 1, "attestation": 1, "record": 0}
        for kind, amount in kinds.items():
            found: list[Any] = []
            after: Any = 0
            while after is not None:
                asked = {"kind": kind, "after": after, "limit": 2}
                page = opened(await endpoints.export(service, signed(CONTROLLER, "export", asked)))
                found += page["records"]  # type: ignore[arg-type]  # a list, as the next lines show
                after = page["next"]
            assert len(found) == amount
            assert all(each["owner"] == CONTROLLER.public_key.hex() for each in found)


async def test_a_page_of_an_export_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_pages, "MOST_BYTES", 5_000)
    async with serving(tmp_path) as service:
        for number in range(10):
            await endpoints.ingest(service, encoded({"text": f"{number} " + "x" * 2_000}))
        pages, after = 0, 0
        seen: list[str] = []
        while True:
            page: Any = opened(await endpoints.export(service, signed(CONTROLLER, "export", {"after": after})))
            seen += [record["text"][0] for record in page["records"]]
            pages += 1
            if page["next"] is None:
                break
            after = page["next"]
        assert seen == [str(number) for number in range(10)]
        assert pages == 5
