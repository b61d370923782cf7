"""Weights committed by hash: the hash, the window, what is kept meanwhile, and the chain's own rules."""

import hashlib
import os
import stat
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.chain.errors import AnswerMalformed, RefusedInBlock
from engram.chain.read.runtime import ERA_BLOCKS
from engram.chain.read.view import View, open_view, view_at
from engram.chain.submit import hashed_weights
from engram.chain.submit.hashed_weights import HashedCommit, Stage, Window, committed_at, stage, window
from engram.chain.submit.kept_commits import KEPT_AT_MOST, KeptCommitError, KeptCommits
from engram.chain.submit.submit_extrinsic import InclusionWait, submit
from engram.chain.submit.weights import WeightsInvalid, WeightsPlan, holds, objections, plan, upscale
from engram.hotkeys import Keypair
from tests.fakes.hashing_chain import COMMITS_AT_MOST, HashingChain

ALICE, EVE = Keypair.from_uri("//Alice"), Keypair.from_uri("//Eve")
SALT = tuple(range(16))
QUICK = InclusionWait(0.01, 5.0)
U16 = st.integers(0, 65_535)
VECTOR = st.lists(U16, max_size=300)


def commit(**changed: object) -> HashedCommit:
    made = HashedCommit(
        genesis=b"g" * 32,
        netuid=450,
        hotkey=ALICE.public_key,
        uids=(3, 9),
        values=(32_768, 65_535),
        version_key=7,
        salt=SALT,
        signed_at_block=1_100,
    )
    return msgspec.structs.replace(made, **changed)


# --- the hash --------------------------------------------------------------------------------------------------------


@given(
    st.lists(U16, max_size=300), st.lists(U16, max_size=300), st.lists(U16, max_size=80), U16, st.integers(0, 2**64 - 1)
)
def test_the_hash_is_that_of_the_scale_tuple(
    uids: list[int], values: list[int], salt: list[int], netuid: int, version_key: int
) -> None:
    given_ = commit(uids=tuple(uids), values=tuple(values), salt=tuple(salt), netuid=netuid, version_key=version_key)
    arguments = {**given_.reveal_call.arguments}
    assert given_.hash == HASHING.commit_hash(ALICE.public_key, arguments)


HASHING = HashingChain()


def test_the_hash_is_the_python_references() -> None:
    """By the reference's own steps, in substrate-interface's types (bittensor's generate_weight_hash)."""
    scalecodec = pytest.importorskip("scalecodec")
    types = pytest.importorskip("scalecodec.types")

    def vector(numbers: tuple[int, ...]) -> bytes:
        made = types.Vec(data=None, sub_type="U16")
        made.value = [types.U16(scalecodec.ScaleBytes(number.to_bytes(2, "little"))) for number in numbers]
        return bytes(made.encode().data)

    one = commit()
    octets = ALICE.public_key + one.netuid.to_bytes(2, "little")
    octets += vector(one.uids) + vector(one.values) + vector(one.salt) + one.version_key.to_bytes(8, "little")
    assert one.hash == hashlib.blake2b(octets, digest_size=32).digest()


@pytest.mark.parametrize(
    "changed",
    [
        {"netuid": 451},
        {"hotkey": EVE.public_key},
        {"uids": (3, 8)},
        {"values": (32_767, 65_535)},
        {"version_key": 8},
        {"salt": (*SALT[:-1], 99)},
    ],
)
def test_everything_that_is_revealed_is_in_the_hash(changed: dict[str, object]) -> None:
    assert commit(**changed).hash != commit().hash


def test_neither_weights_nor_salt_are_shown() -> None:
    shown = repr(commit(salt=(54_321,) * 16, values=(12_345, 65_535)))
    assert "54321" not in shown
    assert "12345" not in shown
    assert len({hashed_weights.fresh_salt() for _ in range(10)}) == 10


# --- the window ------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**8), U16, st.integers(0, 10_000), st.integers(1, 20))
def test_the_window_is_the_one_epoch_that_the_chain_takes(block: int, netuid: int, tempo: int, period: int) -> None:
    def epoch(number: int) -> int:
        return (number + netuid + 1) // (tempo + 1)

    found = window(block, netuid, tempo, period)
    assert epoch(found.last_block) == epoch(block) + period
    assert epoch(found.last_block + 1) == epoch(block) + period + 1
    assert epoch(found.first_block) == epoch(block) + period
    assert found.first_block == 0 or epoch(found.first_block - 1) == epoch(block) + period - 1


@pytest.mark.parametrize(
    ("head", "found"),
    [(98, Stage.WAITING), (99, Stage.OPEN), (109, Stage.OPEN), (110, Stage.EXPIRED)],
)
def test_what_may_be_done_depends_on_the_next_block(head: int, found: Stage) -> None:
    assert stage(Window(100, 110), 90, head) is found


def test_a_commit_that_is_not_there_may_come_until_its_era_ends() -> None:
    assert stage(None, 100, 100 + ERA_BLOCKS - 1) is Stage.UNSEEN
    assert stage(None, 100, 100 + ERA_BLOCKS) is Stage.GONE


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_what_opens_a_commit_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        kept = KeptCommits(tmp_path / "commits")
        path = kept.keep(commit())
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert kept.of(b"g" * 32, 450, ALICE.public_key) == [commit()]
    assert kept.of(b"h" * 32, 450, ALICE.public_key) == []
    assert kept.of(b"g" * 32, 450, EVE.public_key) == []
    assert kept.of(b"g" * 32, 45, ALICE.public_key) == []
    kept.forget(commit())
    kept.forget(commit())
    assert kept.of(b"g" * 32, 450, ALICE.public_key) == []
    assert list(path.parent.iterdir()) == []


def test_older_commits_come_first(tmp_path: Path) -> None:
    kept = KeptCommits(tmp_path)
    for block in (30, 10, 20):
        kept.keep(commit(signed_at_block=block, salt=(block,) * 16))
    assert [one.signed_at_block for one in kept.of(b"g" * 32, 450, ALICE.public_key)] == [10, 20, 30]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[1]",
        b"\xff",
        b'{"engram_weight_commit":1}',
        *(
            (b'"version_key":7', bad)
            for bad in (b'"version_key":8', b'"version_key":-1', b'"version_key":99999999999999999999')
        ),
        (b'"netuid":450', b'"netuid":70000'),
        (b'"values":[32768', b'"values":[32767'),
        (b'"genesis":"0x', b'"genesis":"0xzz'),
        (b'"hotkey":"5', b'"hotkey":"6'),
        (b'"engram_weight_commit":1', b'"engram_weight_commit":2'),
    ],
)
def test_a_damaged_file_is_left_out_and_told_by_its_name(content: bytes | tuple[bytes, bytes], tmp_path: Path) -> None:
    kept = KeptCommits(tmp_path)
    path = kept.keep(commit())
    if isinstance(content, tuple):
        plain = path.read_bytes().replace(b": ", b":").replace(b"\n", b"").replace(b"  ", b"")
        assert content[0] in plain
        content = plain.replace(*content)
    path.write_bytes(content)
    whole = commit(signed_at_block=20, salt=(2,) * 8)
    kept.keep(whole)
    assert kept.of(b"g" * 32, 450, ALICE.public_key) == [whole]
    (told,) = kept.unusable(450)
    assert path.name in told


def test_a_file_open_to_others_is_not_used(tmp_path: Path) -> None:
    kept = KeptCommits(tmp_path)
    kept.keep(commit()).chmod(0o644)
    assert kept.of(b"g" * 32, 450, ALICE.public_key) == []
    assert not kept.holds(450, ALICE.public_key)
    (told,) = kept.unusable(450)
    assert "chmod 600" in told


def test_what_waits_to_be_revealed_is_one_s_own(tmp_path: Path) -> None:
    kept = KeptCommits(tmp_path)
    kept.keep(commit())
    assert kept.holds(450, ALICE.public_key)
    assert not kept.holds(450, EVE.public_key)
    assert not kept.holds(45, ALICE.public_key)
    assert kept.unusable(450) == []


def test_a_folder_that_cannot_hold_it_refuses_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(KeptCommitError, match="cannot"):
        KeptCommits(tmp_path / "file" / "commits").keep(commit())
    kept = KeptCommits(tmp_path / "full")
    for number in range(KEPT_AT_MOST):
        (tmp_path / "full").mkdir(exist_ok=True)
        (tmp_path / "full" / f"{number}.json").write_bytes(b"")
    with pytest.raises(KeptCommitError, match="holds 256"):
        kept.keep(commit())


# --- on the chain ----------------------------------------------------------------------------------------------------


async def planned(chain: HashingChain, version_key: int = 0) -> tuple[View, WeightsPlan, HashedCommit]:
    view = await open_view([chain])
    metagraph = await view.metagraph(450, 0.0)
    weights = upscale({3: 0.5, 9: 1.0}, metagraph)
    made = await plan(view, metagraph, weights, ALICE.public_key, version_key, 0.0)
    assert made.hashed is not None
    return view, made, made.hashed


async def committed(chain: HashingChain) -> tuple[View, HashedCommit, Window]:
    view, made, hashed = await planned(chain)
    done = await submit(view, [chain], made.call, ALICE, QUICK)
    there = await view_at(chain, done.block.hash, view)
    assert await holds(there, made, 450, 0)
    at = await committed_at(there, hashed)
    assert at is not None
    assert at == done.block.number
    parameters = (await view.metagraph(450, 0.0)).parameters
    return view, hashed, window(at, 450, parameters.tempo, parameters.commit_reveal_period_tempos)


def moved(chain: HashingChain, head: int) -> None:
    while chain.head < head:
        chain.seal()


async def revealed(chain: HashingChain, hashed: HashedCommit, by: Keypair = ALICE) -> None:
    view = await open_view([chain])
    await submit(view, [chain], hashed.reveal_call, by, QUICK)


async def test_a_commit_is_revealed_in_its_window_and_the_weights_stand() -> None:
    chain = HashingChain()
    _, hashed, opens = await committed(chain)
    assert len(hashed.salt) == hashed_weights.SALT_WORDS
    assert chain.get("SubtensorModule", "WeightCommits", 450, ALICE.public_key)[0][2:] == (
        opens.first_block,
        opens.last_block,
    )
    moved(chain, opens.first_block - 1)
    await revealed(chain, hashed)
    assert chain.get("SubtensorModule", "Weights", 450, 0) == [(3, 32_768), (9, 65_535)]
    assert await committed_at(await open_view([chain]), hashed) is None


async def test_what_is_sent_before_the_reveal_does_not_tell_the_weights() -> None:
    chain = HashingChain()
    _, made, hashed = await planned(chain)
    assert made.call.arguments == {"netuid": 450, "commit_hash": hashed.hash}
    again = (await planned(chain))[2]
    assert again.hash != hashed.hash


async def test_a_reveal_out_of_its_window_is_refused_by_name() -> None:
    chain = HashingChain()
    _, hashed, opens = await committed(chain)
    chain.seal_at_look = False
    moved(chain, opens.first_block - 5)
    chain.seal_at_look = True
    with pytest.raises(RefusedInBlock, match="RevealTooEarly"):
        await revealed(chain, hashed)
    moved(chain, opens.last_block)
    with pytest.raises(RefusedInBlock, match="ExpiredWeightCommit"):
        await revealed(chain, hashed)


async def test_a_reveal_of_something_else_is_refused_by_name() -> None:
    chain = HashingChain()
    with pytest.raises(RefusedInBlock, match="NoWeightsCommitFound"):
        await revealed(chain, commit(version_key=0))
    _, hashed, opens = await committed(chain)
    moved(chain, opens.first_block - 1)
    for changed in ({"salt": (1,) * 16}, {"values": (65_535, 32_768)}, {"version_key": 1}):
        with pytest.raises(RefusedInBlock, match="InvalidRevealCommitHashNotMatch"):
            await revealed(chain, msgspec.structs.replace(hashed, **changed))
    await revealed(chain, hashed)


async def test_a_commit_too_many_or_too_soon_is_refused_by_name() -> None:
    chain = HashingChain()
    chain.put(1_000, "SubtensorModule", "Tempo", 450)
    for _ in range(COMMITS_AT_MOST):
        await committed(chain)
    view, made, _ = await planned(chain)
    with pytest.raises(RefusedInBlock, match="TooManyUnrevealedCommits"):
        await submit(view, [chain], made.call, ALICE, QUICK)
    chain.put(500, "SubtensorModule", "WeightsSetRateLimit", 450)
    with pytest.raises(RefusedInBlock, match="CommittingWeightsTooFast"):
        await submit(view, [chain], made.call, ALICE, QUICK)
    chain.put(False, "SubtensorModule", "CommitRevealWeightsEnabled", 450)
    with pytest.raises(RefusedInBlock, match="CommitRevealDisabled"):
        await submit(view, [chain], made.call, ALICE, QUICK)


async def test_a_version_key_that_no_u64_holds_is_refused_beforehand() -> None:
    for wrong in (-1, 2**64):
        with pytest.raises(WeightsInvalid, match="version key"):
            await planned(HashingChain(), wrong)


async def test_the_chains_word_for_too_soon_is_that_of_the_call() -> None:
    metagraph = await (await open_view([HashingChain()])).metagraph(450, 0.0)
    slow = msgspec.structs.replace(metagraph.parameters, weights_rate_limit_blocks=10**6)
    (told,) = objections(msgspec.structs.replace(metagraph, parameters=slow), ALICE.public_key, 0)
    assert told.startswith("CommittingWeightsTooFast")


@pytest.mark.parametrize("held", ["0x04", 5, [5], [["0x", "x"]], [[1, 2]]])
async def test_commits_in_another_shape_are_a_clear_error(held: object, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = HashingChain()
    view = await open_view([chain])

    async def storage(*given_: object) -> object:
        return held

    monkeypatch.setattr(View, "storage", storage)
    with pytest.raises(AnswerMalformed, match="WeightCommits"):
        await committed_at(view, commit())


async def test_runtimes_whose_commits_have_no_window_of_their_own_are_read_too(monkeypatch: pytest.MonkeyPatch) -> None:
    view = await open_view([HashingChain()])

    async def storage(*given_: object) -> object:
        return [("0x" + "11" * 32, 5), ("0x" + commit().hash.hex(), 8)]

    monkeypatch.setattr(View, "storage", storage)
    assert await committed_at(view, commit()) == 8
