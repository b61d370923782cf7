"""Key shares over real nodes and bad ones, blocking and for trio: the right secret, or who did what; nothing else."""

import hashlib
import json
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from config.model import MinerSettings
from engram.hotkeys import Keypair
from engram.sdk import (
    AsyncNodeClient,
    NodeClient,
    NodeFault,
    SharesMissing,
    SharesNotPlaced,
    async_collect_key_shares,
    async_distribute_key_shares,
    collect_key_shares,
    distribute_key_shares,
)
from engram.sdk.shamir import Share
from tests.miner.nodes import NodeProcess, node
from tests.sdk.doubles import Asked, Told, scripted

pytestmark = pytest.mark.serial

OWNER = Keypair.from_seed(bytes([33]) * 32)
SECRET = b"the key of the vault"
NOBODY = "http://127.0.0.1:9"
PATIENT_S = 300.0
"""Longer than a test may take: who waits for it, fails."""


class Blocking:
    """The blocking functions, called as programs do: in a thread."""

    async def distribute(
        self,
        secret: bytes,
        urls: Sequence[str],
        namespace: str,
        threshold: int,
        within_s: float = PATIENT_S,
        replace: bool = False,
    ) -> bytes:
        def run() -> bytes:
            with ExitStack() as stack:
                clients = [stack.enter_context(NodeClient(url, OWNER, namespace=namespace)) for url in urls]
                return distribute_key_shares(secret, clients, threshold, within_s=within_s, replace=replace)

        return await trio.to_thread.run_sync(run)

    async def collect(
        self,
        urls: Sequence[str],
        namespace: str,
        sha256: bytes | None,
        within_s: float = PATIENT_S,
        on_fault: Callable[[NodeFault], None] = lambda fault: None,
    ) -> bytes:
        def run() -> bytes:
            with ExitStack() as stack:
                clients = [stack.enter_context(NodeClient(url, OWNER, namespace=namespace)) for url in urls]
                return collect_key_shares(clients, sha256, within_s=within_s, on_fault=on_fault)

        return await trio.to_thread.run_sync(run)


class ForTrio:
    """The functions for trio."""

    async def distribute(
        self,
        secret: bytes,
        urls: Sequence[str],
        namespace: str,
        threshold: int,
        within_s: float = PATIENT_S,
        replace: bool = False,
    ) -> bytes:
        async with AsyncExitStack() as stack:
            clients = [await self._client(stack, url, namespace) for url in urls]
            return await async_distribute_key_shares(secret, clients, threshold, within_s=within_s, replace=replace)

    async def collect(
        self,
        urls: Sequence[str],
        namespace: str,
        sha256: bytes | None,
        within_s: float = PATIENT_S,
        on_fault: Callable[[NodeFault], None] = lambda fault: None,
    ) -> bytes:
        async with AsyncExitStack() as stack:
            clients = [await self._client(stack, url, namespace) for url in urls]
            return await async_collect_key_shares(clients, sha256, within_s=within_s, on_fault=on_fault)

    async def _client(self, stack: AsyncExitStack, url: str, namespace: str) -> AsyncNodeClient:
        client = AsyncNodeClient(url, OWNER, namespace=namespace, timeout_s=PATIENT_S)
        return await stack.enter_async_context(client)


Way = Blocking | ForTrio


@pytest.fixture(params=[Blocking, ForTrio], ids=["blocking", "trio"])
def way(request: pytest.FixtureRequest) -> Way:
    made: Way = request.param()
    return made


@pytest.fixture
def vault(request: pytest.FixtureRequest) -> str:
    """A namespace of the test's own: a node keeps one share for each."""
    return "v" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[NodeProcess]]:
    with ExitStack() as stack:
        folders = [tmp_path_factory.mktemp("node") for _ in range(3)]
        yield [stack.enter_context(node(folder, miner=MinerSettings(private_bucket_ms=0))) for folder in folders]


def urls_of(nodes: Sequence[NodeProcess]) -> list[str]:
    return [f"http://127.0.0.1:{each.port}" for each in nodes]


def keeping(
    change: Callable[[dict[str, object]], dict[str, object]] = lambda fields: fields,
) -> Callable[[Asked], Told]:
    """A node that keeps shares and gives them back changed."""
    kept: dict[str, object] = {}

    def script(asked: Asked) -> Told:
        if asked.path == "/KeyShareSynapse":
            kept.update(json.loads(asked.body))
            return Told(body=b'{"stored": true}')
        return Told(body=json.dumps(change(kept)).encode()) if kept else Told(404)

    return script


@contextmanager
def hanging() -> Iterator[str]:
    """A node that takes a request and says nothing until the test is over."""
    over = threading.Event()

    def script(asked: Asked) -> Told:
        over.wait(PATIENT_S)
        return Told(503)

    with scripted(script) as url:
        try:
            yield url
        finally:
            over.set()


@contextmanager
def dripping() -> Iterator[str]:
    """A node that sends a byte of a header every few milliseconds, without end: no single read is ever slow."""
    over = threading.Event()

    def drip(connection: socket.socket) -> None:
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
            while not over.wait(0.01):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

    def accept(listener: socket.socket) -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=drip, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, args=(listener,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


async def test_dead_nodes_and_hanging_ones_hold_up_nobody(way: Way, nodes: list[NodeProcess], vault: str) -> None:
    urls = urls_of(nodes)
    digest = await way.distribute(SECRET, urls, vault, 2)
    with hanging() as silent, dripping() as slow:
        assert await way.collect([NOBODY, silent, slow, *urls], vault, digest) == SECRET


async def test_a_killed_node_and_a_stopped_one_are_named(
    way: Way, tmp_path: Path, nodes: list[NodeProcess], vault: str
) -> None:
    with node(tmp_path, miner=MinerSettings(private_bucket_ms=0)) as dies:
        urls = urls_of([dies, *nodes[:2]])
        digest = await way.distribute(SECRET, urls, vault, 2)
        dies.kill()
    assert await way.collect(urls, vault, digest) == SECRET
    pid = nodes[0].process.pid if nodes[0].process else 0
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(SharesMissing) as told:
            await way.collect(urls, vault, digest, within_s=0.5)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert [(fault.number, fault.kind) for fault in told.value.faults] == [(1, "unreachable"), (2, "silent")]
    assert f"node 2 ({urls[1]}) did not answer within 0.5 s" in told.value.reasons
    assert "only node 3 gave a share" in str(told.value)
    assert await way.collect(urls, vault, digest) == SECRET


async def replace(url: str, namespace: str, share: Share) -> None:
    """What a node keeps, made another by its owner: a node that lies about the real thing."""
    async with AsyncNodeClient(url, OWNER, namespace=namespace) as client:
        await client.put_share(share, 2, 5, replace=True)


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        (lambda right, other: Share(right.index, b"\0" + right.data[1:]), "is not number 2 of this secret"),
        (lambda right, other: other, "is not number 2 of this secret"),
        (lambda right, other: Share(5, right.data), "gave share number 2 and says that it is number 5"),
        (lambda right, other: Share(1, right.data), "gave share number 2 and says that it is number 1"),
    ],
    ids=["altered", "of another secret", "wrong number", "the number of another"],
)
async def test_a_real_node_with_a_wrong_share_misleads_nobody(
    way: Way, nodes: list[NodeProcess], vault: str, lie: Callable[[Share, Share], Share], says: str
) -> None:
    urls = urls_of(nodes)
    digest = await way.distribute(SECRET, urls, vault, 2)
    async with AsyncNodeClient(urls[1], OWNER, namespace=vault) as second:
        kept = await second.get_share()
        assert kept is not None
        await replace(urls[1], vault, lie(kept[0], Share(2, b"z" * len(SECRET))))
    assert await way.collect(urls, vault, digest) == SECRET
    faults: list[NodeFault] = []
    assert await way.collect([urls[1], urls[0], urls[2]], vault, digest, on_fault=faults.append) == SECRET
    assert all(fault.url == urls[1] and says in fault.detail for fault in faults)
    with pytest.raises(SharesMissing) as told:
        await way.collect(urls[:2], vault, digest)
    assert "give another secret: at least 1 of them is wrong" in str(told.value) or "2 are needed" in str(told.value)
    with pytest.raises(SharesMissing, match="not agree"):
        await way.collect(urls, vault, None)


async def test_without_a_digest_nodes_that_agree_are_believed_and_the_liar_is_named(
    way: Way, nodes: list[NodeProcess], vault: str
) -> None:
    def another(fields: dict[str, object]) -> dict[str, object]:
        return fields | {"share_hex": "00" * len(SECRET)}

    faults: list[NodeFault] = []
    with scripted(keeping()) as honest:
        urls = [*urls_of(nodes), honest]
        await way.distribute(SECRET, urls, vault, 2)
        assert await way.collect(urls, vault, None, on_fault=faults.append) == SECRET
        assert faults == []
        with scripted(lambda asked: Told(body=json.dumps(wrong).encode())) as liar:
            wrong = another({"share_index": 9, "threshold": 2, "total": 9})
            assert await way.collect([*urls, liar], vault, None, on_fault=faults.append) == SECRET
    assert [(fault.number, fault.kind) for fault in faults] == [(5, "wrong")]


async def test_one_node_twice_counts_once(way: Way, nodes: list[NodeProcess], vault: str) -> None:
    urls = urls_of(nodes)
    digest = await way.distribute(SECRET, urls, vault, 3)
    with pytest.raises(SharesMissing, match="2 shares were found, 3 are needed") as told:
        await way.collect([urls[0], urls[0], urls[1]], vault, digest)
    [fault] = told.value.faults
    assert fault.kind in ("duplicate", "refused")  # refused: a replay, when both were signed in one millisecond
    with pytest.raises(SharesNotPlaced) as refused:
        await way.distribute(SECRET, [urls[0], urls[0]], vault + "x", 2)
    assert len(refused.value.left) in (1, 2)  # one of the two is refused, or each finds the other's share


@pytest.mark.parametrize(
    "answer",
    [
        b"pong",
        b"{}",
        b'{"share_index": 0, "share_hex": "00", "threshold": 2, "total": 3}',
        b'{"share_index": 1, "share_hex": "", "threshold": 2, "total": 3}',
        b'{"share_index": 1, "share_hex": "0", "threshold": 2, "total": 3}',
        b'{"share_index": 1, "share_hex": "00", "threshold": 1, "total": 3}',
        b'{"share_index": 1e400, "share_hex": "00", "threshold": 2, "total": 3}',
        b'{"share_index": 1, "share_hex": "' + b"00" * 70_000 + b'", "threshold": 2, "total": 3}',
        b"[" * 100_000,
        b"x" * 5_000_000,
    ],
    ids=["no JSON", "nothing", "number 0", "empty", "half a byte", "threshold 1", "huge number", "long", "deep", "big"],
)
async def test_garbage_is_named_and_passed_over(answer: bytes, nodes: list[NodeProcess], vault: str) -> None:
    way, urls = ForTrio(), urls_of(nodes)
    digest = await way.distribute(SECRET, urls[:2], vault, 2)
    with scripted(lambda asked: Told(body=answer)) as garbage:
        with pytest.raises(SharesMissing) as told:
            await way.collect([garbage, urls[0]], vault, digest)
        assert [(fault.number, fault.kind) for fault in told.value.faults] == [(1, "malformed")]
        assert await way.collect([garbage, *urls], vault, digest) == SECRET


async def test_what_is_not_placed_is_named_and_can_be_placed_later(
    way: Way, nodes: list[NodeProcess], vault: str
) -> None:
    def forgets(asked: Asked) -> Told:
        return Told(body=b'{"stored": true}') if asked.path == "/KeyShareSynapse" else Told(404)

    def changes(fields: dict[str, object]) -> dict[str, object]:
        return fields | {"share_index": 1}

    with scripted(forgets) as first, scripted(keeping(changes)) as second, hanging() as silent, dripping() as slow:
        urls = [first, second, silent, slow, NOBODY, *urls_of(nodes)]
        with pytest.raises(SharesNotPlaced) as told:
            await way.distribute(SECRET, urls, vault, 3, within_s=1.0)
    assert [(fault.number, fault.kind) for fault in told.value.faults] == [
        (1, "empty"),
        (2, "wrong"),
        (3, "silent"),
        (4, "silent"),
        (5, "unreachable"),
    ]
    assert told.value.placed == (6, 7, 8)
    assert "3 of 8 nodes are known to keep their share (enough to collect)" in str(told.value)
    assert not any(share.data.hex() in str(told.value) + repr(told.value.left) for _, share in told.value.left)
    with scripted(keeping()) as later:
        async with AsyncNodeClient(later, OWNER, namespace=vault) as client:
            await client.put_share(told.value.left[4][1], 3, 8)
        assert await way.collect([later, *urls_of(nodes)[:2]], vault, told.value.sha256) == SECRET


async def test_a_node_that_does_not_keep_its_share_has_refused_it(vault: str) -> None:
    with scripted(lambda asked: Told(body=b'{"stored": false}')) as url, pytest.raises(SharesNotPlaced) as told:
        await ForTrio().distribute(SECRET, [url, url], vault, 2)
    assert [fault.kind for fault in told.value.faults] == ["refused", "refused"]
    assert "0 of 2 nodes are known to keep their share (2 are needed to collect)" in str(told.value)


async def test_a_caller_who_gives_up_leaves_nothing_running(nodes: list[NodeProcess], vault: str) -> None:
    with hanging() as silent:
        with trio.move_on_after(0.1) as gave_up:
            await ForTrio().collect([silent, *urls_of(nodes)], vault, None)
    assert gave_up.cancelled_caught


async def test_what_cannot_be_asked_is_refused_before_anything_is_sent(way: Way) -> None:
    asks: list[Callable[[], Awaitable[bytes]]] = [
        partial(way.distribute, SECRET, [NOBODY], "vault", 2),
        partial(way.distribute, b"", [NOBODY] * 3, "vault", 2),
        partial(way.collect, [NOBODY], "vault", b"short"),
    ]
    for ask in asks:
        with pytest.raises(ValueError, match=r"share|sha256"):
            await ask()
    with NodeClient(NOBODY, OWNER, namespace="a") as one, NodeClient(NOBODY, OWNER) as public:
        with pytest.raises(ValueError, match="namespace"):
            collect_key_shares([one, public], None)
        with pytest.raises(ValueError, match="namespace"):
            distribute_key_shares(SECRET, [public, public], 2)


async def shares_of(urls: Sequence[str], namespace: str) -> list[tuple[Share, int] | None]:
    kept: list[tuple[Share, int] | None] = []
    for url in urls:
        async with AsyncNodeClient(url, OWNER, namespace=namespace) as client:
            kept.append(await client.get_share())
    return kept


async def test_distributing_again_changes_nothing(way: Way, nodes: list[NodeProcess], vault: str) -> None:
    urls = urls_of(nodes)
    digest = await way.distribute(SECRET, urls, vault, 2)
    kept = await shares_of(urls, vault)
    assert await way.distribute(SECRET, urls, vault, 2) == digest
    assert await way.distribute(SECRET, urls, vault, 2, replace=True) == digest
    assert await shares_of(urls, vault) == kept


@pytest.mark.parametrize("there", [0, 1, 2])
async def test_distributing_again_completes_what_met_a_node_that_was_down(
    way: Way, nodes: list[NodeProcess], vault: str, there: int
) -> None:
    urls = urls_of(nodes)
    with pytest.raises(SharesNotPlaced) as told:
        await way.distribute(SECRET, [*urls[:there], *[NOBODY] * (3 - there)], vault, 2)
    assert told.value.placed == tuple(range(1, there + 1))
    kept = await shares_of(urls[:there], vault)
    digest = await way.distribute(SECRET, urls, vault, 2)
    assert digest == told.value.sha256
    assert await shares_of(urls[:there], vault) == kept
    for pair in (urls[:2], urls[1:], [urls[0], urls[2]]):
        assert await way.collect(pair, vault, digest) == SECRET


async def test_another_secret_is_placed_only_in_the_place_of_what_is_there(
    way: Way, nodes: list[NodeProcess], vault: str
) -> None:
    urls = urls_of(nodes)
    digest = await way.distribute(SECRET, urls[:2], vault, 2)
    kept = await shares_of(urls[:2], vault)
    with pytest.raises(SharesNotPlaced, match="replace=True") as told:
        await way.distribute(b"another key", urls, vault, 2)
    assert (told.value.placed, len(told.value.left)) == ((), 3)
    assert await shares_of(urls, vault) == [*kept, None]
    assert await way.collect(urls, vault, digest) == SECRET
    another = await way.distribute(b"another key", urls, vault, 2, replace=True)
    assert await way.collect(urls, vault, another) == b"another key"


async def test_a_share_that_was_altered_is_named_and_replaced(way: Way, nodes: list[NodeProcess], vault: str) -> None:
    urls = urls_of(nodes)
    digest = await way.distribute(SECRET, urls, vault, 2)
    kept = await shares_of(urls, vault)
    await replace(urls[1], vault, Share(2, b"z" * len(SECRET)))
    with pytest.raises(SharesNotPlaced) as told:
        await way.distribute(SECRET, urls, vault, 2)
    assert [(fault.number, fault.kind) for fault in told.value.faults] == [(2, "wrong")]
    assert await way.distribute(SECRET, urls, vault, 2, replace=True) == digest
    assert await shares_of(urls, vault) == kept
