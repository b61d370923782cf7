"""The clients against real nodes: what they store, find, prove and share, and what nobody else gets."""

import struct
from collections.abc import Iterator

import pytest
import trio

from engram.memory.proof import proofs
from engram.sdk import (
    ApiError,
    AsyncNodeClient,
    HybridCipher,
    Impostor,
    ListingIncomplete,
    NodeClient,
    NodeRefused,
    Undecryptable,
)
from tests.miner.nodes import CONTROLLER, NODE, STRANGER, NodeProcess, node

pytestmark = pytest.mark.serial

MINE = "notes"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with node(tmp_path_factory.mktemp("node")) as made:
        yield made


def url(of: NodeProcess) -> str:
    return f"http://127.0.0.1:{of.port}"


def vector(*numbers: float) -> list[float]:
    return [*numbers, *[0.0] * (384 - len(numbers))]


def test_the_whole_life_of_a_private_memory(running: NodeProcess) -> None:
    with NodeClient(url(running), CONTROLLER, namespace=MINE) as mine, NodeClient(url(running)) as anybody:
        cid = mine.ingest_text("Otters hold hands.", {"kind": "fact"})
        results = mine.ingest_batch([("one", {"n": 1}), (" ", {})])
        assert isinstance(results[1], NodeRefused)
        assert mine.query("otters hold hands", top_k=1)[0].text == "Otters hold hands."
        assert {memory.cid for memory in mine.list()} == {cid, results[0]}
        found = mine.get(cid)
        assert found is not None
        assert found.metadata["kind"] == "fact"
        assert anybody.get(cid) is None
        assert anybody.query("otters") == []
        assert mine.commitment(NODE.public_key).count == 2
        assert mine.delete(cid)
        assert not mine.delete(cid)
        assert mine.prove(cid, NODE.public_key) is None
    with NodeClient(url(running), STRANGER, namespace=MINE) as stranger, pytest.raises(ApiError):
        stranger.query("one")


def test_a_node_proves_what_it_holds_to_whoever_knows_its_key(running: NodeProcess) -> None:
    packed = struct.pack("<384f", *vector(0.5, 1.0))
    with NodeClient(url(running), STRANGER) as client:
        cid = client.ingest_vector(vector(0.5, 1.0))
        assert client.challenge(cid, packed, NODE.public_key)
        assert not client.challenge(cid, packed[:-1] + b"\x01", NODE.public_key)
        assert not client.challenge(cid, packed, STRANGER.public_key)
        assert not client.challenge("v1::" + "0" * 64, packed, NODE.public_key)
        assert client.prove(cid, NODE.public_key) == proofs.embedding_hash(packed)
        assert client.prove("v1::" + "0" * 64, NODE.public_key) is None
        with pytest.raises(Impostor):
            client.prove(cid, STRANGER.public_key)
        with pytest.raises(Impostor):
            client.commitment(STRANGER.public_key)


def test_an_encrypted_memory_is_read_by_its_recipient_only(running: NodeProcess) -> None:
    cipher, public, _ = HybridCipher.generate()

    def embed(text: str) -> list[float]:
        return vector(float(len(text)), 1.0)

    with NodeClient(url(running), CONTROLLER, namespace="sealed", cipher=HybridCipher(public), embed=embed) as writer:
        writer.ingest("a secret", {"to": "you"})
    with NodeClient(url(running), CONTROLLER, namespace="sealed", cipher=cipher, embed=embed) as reader:
        [hit] = reader.query("a secret")
        assert (hit.text, hit.metadata) == ("a secret", {"text": "a secret", "to": "you"})
        [memory] = reader.list()
        assert memory.metadata["text"] == "a secret"
    with NodeClient(url(running), CONTROLLER, namespace="sealed") as without:
        assert "secret" not in str(without.list())


def test_a_text_comes_back_to_whoever_signs_for_it_and_to_nobody_else(running: NodeProcess) -> None:
    long = "Otters hold hands while they sleep. " * 200  # has no room in the metadata
    for namespace in (None, "texts"):
        with NodeClient(url(running), CONTROLLER, namespace=namespace) as mine:
            cid = mine.ingest(long)
            assert [hit.text for hit in mine.query(long, top_k=1)] == [long]
            found = mine.get(cid)
            assert found is not None
            assert found.text == long
            assert long in [memory.text for memory in mine.list()]
    with NodeClient(url(running)) as anybody:
        assert [hit.text for hit in anybody.query(long, top_k=1)] == [""]


def test_many_vectors_are_stored_under_the_ids_of_single_ones(running: NodeProcess) -> None:
    made = [vector(1.0, number / 3) for number in range(64)]
    with NodeClient(url(running), CONTROLLER, namespace="many_vectors") as mine:
        cids = mine.ingest_vectors([(each, {"number": number}) for number, each in enumerate(made)])
        assert mine.ingest_vector(made[7], {"number": 7}) == cids[7]
        assert len(mine.list(limit=200)) == len(set(map(str, cids))) == 64
        short, huge, good = mine.ingest_vectors([([1.0], {}), (vector(1e39), {}), (vector(1.0, 9.0), {})])
        assert "dimensions" in str(short) or "bytes" in str(short)
        assert "32-bit" in str(huge)
        assert isinstance(good, str)


def test_a_text_that_would_be_lost_is_refused(running: NodeProcess) -> None:
    """The embedder of this node reads both alike, as others do with case or with what is beyond their length."""
    with NodeClient(url(running), CONTROLLER, namespace="alike") as mine:
        cid = mine.ingest("Polish")
        assert mine.ingest("Polish") == cid
        with pytest.raises(NodeRefused, match="add metadata"):
            mine.ingest("polish")
        first, second = mine.ingest_batch([("polish", {}), ("polish", {"is": "verb"})])
        assert isinstance(first, NodeRefused)
        assert isinstance(second, str)
        assert {memory.text for memory in mine.list()} == {"Polish", "polish"}
        assert mine.ingest_text("Polish") != mine.ingest_text("polish")


def test_what_others_have_encrypted_does_not_hide_what_one_can_read(running: NodeProcess) -> None:
    mine, others = HybridCipher.generate()[0], HybridCipher.generate()[0]

    def embed(text: str) -> list[float]:
        return vector(1.0, float(len(text)))

    for keypair, namespace in ((None, None), (CONTROLLER, "two_keys")):
        with NodeClient(url(running), keypair, namespace=namespace, cipher=others, embed=embed) as other:
            theirs = other.ingest_text("something else")
        with NodeClient(url(running), keypair, namespace=namespace, cipher=mine, embed=embed) as client:
            if namespace is None:
                assert [hit.text for hit in client.query("something else", top_k=1)] == [""]
            else:
                with pytest.raises(Undecryptable):  # nothing here is for this key: more likely the wrong one
                    client.query("something else")
            client.ingest_text("a secret")
            assert {hit.text for hit in client.query("a secret")} == {"a secret", ""}
            assert [memory.text for memory in client.list()][-1] == "a secret"
            with pytest.raises(Undecryptable):
                client.get(theirs)


async def test_the_client_for_trio_does_the_same_at_once(running: NodeProcess) -> None:
    async with AsyncNodeClient(url(running), CONTROLLER, namespace="many") as client:
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(client.ingest, f"text {number}")
        assert len(await client.list()) == 8
        [best] = await client.query("text 3", top_k=1)
        assert await client.delete(best.cid)
        assert await client.prove(best.cid, NODE.public_key) is None


def test_a_walk_gives_everything_and_proves_it(running: NodeProcess) -> None:
    with NodeClient(url(running), CONTROLLER, namespace="walked") as mine:
        cids: list[str] = []
        for first in range(0, 450, 225):
            made = [(vector(1.0, number / 7), {"n": number % 2}) for number in range(first, first + 225)]
            cids += [str(each) for each in mine.ingest_vectors(made)]
        assert [memory.cid for memory in mine.walk(node=NODE.public_key)] == cids
        assert len([*mine.walk(where={"n": 1})]) == 225
        with pytest.raises(ValueError, match="filtered"):
            next(iter(mine.walk(where={"n": 1}, node=NODE.public_key)))
        with pytest.raises(Impostor):
            list(mine.walk(node=STRANGER.public_key))
        walk = mine.walk(node=NODE.public_key)
        seen = [next(walk).cid]
        assert mine.delete_batch([cids[1], *cids[300:], cids[1]]) == [*[True] * 151, False]
        with pytest.raises(ListingIncomplete, match="committed to 299"):
            for memory in walk:
                seen.append(memory.cid)
        assert set(seen) >= {cids[0], *cids[2:300]}
        assert mine.look_up(["0"], key="n")[0].cid == cids[0]
        assert len(mine.look_up(["0", "1", "none"], key="n")) == 299


async def test_the_client_for_trio_walks_looks_up_and_deletes_in_batches(running: NodeProcess) -> None:
    async with AsyncNodeClient(url(running), CONTROLLER, namespace="walked_at_once") as client:
        made = await client.ingest_vectors([(vector(1.0, number), {"_ref": str(number)}) for number in range(210)])
        walked = [memory.cid async for memory in client.walk(node=NODE.public_key)]
        assert walked == made
        assert [memory.cid for memory in await client.look_up(["7", "3"])] == [made[3], made[7]]
        assert await client.delete_batch(walked) == [True] * 210
        assert [memory async for memory in client.walk(node=NODE.public_key)] == []


def test_a_filter_that_no_node_understands_is_not_sent(running: NodeProcess) -> None:
    with NodeClient(url(running), CONTROLLER, namespace="filters") as mine:
        mine.ingest("a text", {"n": 1})
        assert len(mine.query("a text", where={"n": 1.0})) == len(mine.list(where={"n": 1})) == 1
        assert len(mine.query("a text", where={"n": {"$gte": 1, "$lt": 2}})) == 1
        assert mine.list(where={"n": {"$gt": 1}}) == []
        assert mine.query("a text", where={"n": {"$in": [2, "3"]}}) == []
        for act in (mine.query, lambda text, where: mine.list(where=where)):
            with pytest.raises(ValueError, match=r"filter\.n is an object with '\$ne'"):
                act("a text", where={"n": {"$ne": 0}})
