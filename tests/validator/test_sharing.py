"""Which uids share one score, and that nobody loses by a group that is not theirs."""

from collections.abc import Collection, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from engram.ledger import open_inline
from engram.validator import peers, reports, round_rules, scoring
from engram.validator.model import Known, Miner
from engram.validator.standing import Standing
from tests.validator.benches import NETUID, OWN, Bench, key, metagraph, neuron
from tests.validator.networks import Network
from tests.validator.toy_miners import Keeps, ServesPublicFile

SHARES = st.floats(0, 1)


def grouped(*found: tuple[int, bytes, str | None], unproved: Collection[int] = ()) -> list[frozenset[int]]:
    """The groups of miners with these uids, coldkeys and URLs; all but `unproved` have met a challenge there."""
    miners = [Miner(hotkey=bytes([uid]) * 32, uid=uid, coldkey=coldkey, url=url) for uid, coldkey, url in found]
    proved = {(each.hotkey, each.url) for each in miners if each.url is not None and each.uid not in unproved}
    return peers.groups(miners, proved)


def test_uids_are_grouped_by_coldkey_or_address_transitively() -> None:
    found = grouped(
        (1, b"a", "http://1.1.1.1:80"),
        (2, b"a", "http://2.2.2.2:80"),
        (3, b"b", "http://2.2.2.2:81"),
        (4, b"c", "http://3.3.3.3:80"),
        (5, b"d", None),
        (6, b"e", None),
    )
    assert found == [frozenset({1, 2, 3})]


def test_a_uid_that_announces_an_address_at_which_it_has_proved_nothing_joins_no_group_by_it() -> None:
    stranger, impostor = (1, b"a", "http://1.1.1.1:80"), (2, b"b", "http://1.1.1.1:80")
    assert grouped(stranger, impostor, unproved={2}) == []
    assert grouped(stranger, (2, b"a", "http://1.1.1.1:80"), unproved={1, 2}) == [frozenset({1, 2})], "one coldkey"
    moved = Miner(hotkey=bytes([2]) * 32, uid=2, coldkey=b"b", url="http://1.1.1.1:80")
    victim = Miner(hotkey=bytes([1]) * 32, uid=1, coldkey=b"a", url="http://1.1.1.1:80")
    elsewhere = {(victim.hotkey, "http://1.1.1.1:80"), (moved.hotkey, "http://9.9.9.9:80")}
    assert peers.groups([victim, moved], elsewhere) == [], "it has proved at another address"


TEREDO = "[2001:0:4136:e378:8000:63bf:f7f7:f7f7]"
"""Behind 8.8.8.8; its server and its port are whatever it likes."""


@pytest.mark.parametrize(
    "other", ["[::ffff:8.8.8.8]", "[64:ff9b::808:808]", "[64:FF9B::8.8.8.8]", "[2002:808:808::1]", TEREDO]
)
def test_another_spelling_of_an_address_leaves_no_group(other: str) -> None:
    assert grouped((1, b"a", "http://8.8.8.8:80"), (2, b"b", f"http://{other}:80")) == [frozenset({1, 2})]


def test_addresses_of_one_ipv6_network_of_64_bits_are_one_host_s() -> None:
    near, far = "http://[2a01:4f8:0:1::1]:80", "http://[2a01:4f8:0:2::1]:80"
    assert grouped((1, b"a", near), (2, b"b", "http://[2a01:4f8:0:1:ffff::9]:81"), (3, b"c", far)) == [
        frozenset({1, 2})
    ]


def test_an_address_is_asked_by_its_one_spelling() -> None:
    others = ["::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1", TEREDO.strip("[]")]
    urls = ["http://8.8.8.8:1", *(f"http://{other}:1" for other in others)]
    graph = metagraph([neuron(uid, key(uid), url) for uid, url in enumerate(urls, 1)])
    assert {each.url for each in peers.miners(graph, OWN.public_key)} == {"http://8.8.8.8:1"}


@given(SHARES.filter(lambda share: share > 0), st.integers(1, 5))
def test_members_of_a_group_that_earn_nothing_take_nothing_from_the_one_that_does(score: float, others: int) -> None:
    scores = {0: score} | dict.fromkeys(range(1, others + 1), 0.0)
    assert scoring.shared(scores, [frozenset(scores)]) == scores


def test_a_slashed_uid_has_no_weight_whoever_shares_its_group_and_takes_none_from_them() -> None:
    stores = Known(hotkey=b"v" * 32, uid=1, standing=Standing(ema=1.0, rounds=9))
    slashed = Standing(ema=0.8, rounds=9, slashes=1, slashed_until_block=10**9)
    cheat = Known(hotkey=b"a" * 32, uid=2, standing=slashed)
    held, uids = {each.hotkey: each for each in (stores, cheat)}, {b"v" * 32: 1, b"a" * 32: 2}
    found = round_rules.weights(held, uids, [frozenset({1, 2})], 100, frozenset())
    assert found == {b"v" * 32: 1.0, b"a" * 32: 0.0}


def bench_of(miners: Sequence[Keeps], serving: Sequence[Keeps], **changed: Any) -> Bench:
    """Rounds over miners that announce addresses, with the setting as it is by default; `serving` answer there."""
    bench = Bench(open_inline(), miners, share_scores=True, **changed)
    bench.client._http = Network(serving)  # type: ignore[assignment]
    return bench


async def last(bench: Bench) -> dict[int, reports.MinerScore]:
    return {each.uid: each for each in await bench.ledger.read(lambda c: reports.scores(c, NETUID))}


async def test_who_announces_a_stranger_s_address_takes_nothing_from_the_stranger(autojump_clock: MockClock) -> None:
    """All that it is asked comes to the stranger, who stores it, and signs its proofs by the stranger's own key."""
    stranger = Keeps(key(1), url="http://127.0.0.1:1")
    impostors = [Keeps(key(number), url=stranger.url) for number in (2, 3)]
    bench = bench_of([stranger, *impostors], [stranger], dimension=384)
    for _ in range(3):
        await bench.hold()
    found = await last(bench)
    # Records of the impostors may be nearer to a question than some of its own: a tenth of the recall at times.
    assert found[1].shared_score == found[1].score == pytest.approx(1.0, abs=0.1)
    assert {each.group_of for each in found.values()} == {None}
    made = await bench.weights()
    assert made.pop(stranger.keypair.public_key) == found[1].ema
    assert set(made.values()) == {0.0}, "and slashed for its proofs"


async def test_two_uids_that_answer_at_one_address_share_what_one_would_earn(autojump_clock: MockClock) -> None:
    miners = [Keeps(key(number), url=f"http://127.0.0.1:{number}") for number in (1, 2)]
    other = Keeps(key(3), url="http://127.0.0.3:3")
    bench = bench_of([*miners, other], [*miners, other])
    for _ in range(2):
        await bench.hold()
    found = await last(bench)
    assert [found[uid].group_of for uid in (1, 2, 3)] == [1, 1, None]
    made = list((await bench.weights()).values())
    assert made == pytest.approx([0.5, 0.5, 1.0], abs=0.03)


async def test_a_uid_cannot_leave_its_group_by_failing_to_prove_in_the_last_round(autojump_clock: MockClock) -> None:
    miners = [Keeps(key(number), url=f"http://127.0.0.1:{number}") for number in (1, 2)]
    bench = bench_of(miners, miners)
    for _ in range(3):
        await bench.hold()
    miners[1].challenge = lambda body: (404, {"error": "not now"})  # type: ignore[method-assign]
    await bench.hold()
    found = await last(bench)
    assert (found[2].proof_rate, found[2].slashed_until_block) == (0.0, None)
    assert found[2].group_of == 1
    assert sum((await bench.weights()).values()) <= 1.0


async def test_a_slashed_uid_of_the_same_operator_earns_nothing_and_takes_nothing(autojump_clock: MockClock) -> None:
    stores, cheat = Keeps(key(1), url="http://127.0.0.1:1"), ServesPublicFile(key(2), url="http://127.0.0.2:2")
    bench = bench_of([stores, cheat], [stores, cheat], coldkeys={1: 7, 2: 7})
    for _ in range(3):
        await bench.hold()
    found = await last(bench)
    assert found[2].slashed_until_block is not None
    assert found[1].group_of == found[2].group_of == 1
    made = await bench.weights()
    assert made == {key(1).public_key: pytest.approx(1.0, abs=0.03), key(2).public_key: 0.0}
