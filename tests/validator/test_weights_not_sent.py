"""What certainly never left the machine is no open outcome: the epoch's weights are set once the trouble is over."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from structlog.testing import capture_logs

from engram import files
from engram.chain.errors import AnswerMalformed, EndpointUnreachable
from engram.chain.submit import submit_extrinsic
from engram.validator.due import RETRY_BLOCKS, Due
from engram.validator.model import SentState
from tests.fakes.living_chain import LivingChain
from tests.validator.setters import RuledChain, setting
from tests.validator.subnets import HashingSubnet


def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def put(*_: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "put", put)


def silent_nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    async def next_nonce(*_: Any) -> NoReturn:
        raise EndpointUnreachable("node: no answer within 10 s")

    monkeypatch.setattr(submit_extrinsic, "next_nonce", next_nonce)


def garbled_nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    async def next_nonce(*_: Any) -> NoReturn:
        raise AnswerMalformed("node: nonce -1")

    monkeypatch.setattr(submit_extrinsic, "next_nonce", next_nonce)


@pytest.mark.parametrize(
    ("chain", "breaks", "why"),
    [
        (HashingSubnet, full_disk, "No space left on device"),
        (RuledChain, garbled_nonce, "nonce -1"),
        (HashingSubnet, silent_nonce, "no answer"),
    ],
    ids=["the salt cannot be kept", "the nonce is garbled", "the nonce is not told"],
)
async def test_weights_that_never_left_are_refused_and_set_as_soon_as_refused_ones_are_tried_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chain: Callable[[], LivingChain],
    breaks: Callable[[pytest.MonkeyPatch], None],
    why: str,
) -> None:
    async with setting(tmp_path, chain) as at:
        if isinstance(at.chain, RuledChain):
            at.chain.timelocked()
        await at.look()
        await at.score({1: 0.2, 2: 1.0})
        with monkeypatch.context() as broken:
            breaks(broken)
            assert await at.look() is Due.REFUSED
        (refused,) = await at.sent()
        assert not list((tmp_path / "commits").glob("*.json")), "the salt of what was never sent is of no use"
        assert refused.state is SentState.REFUSED
        assert why in (refused.reason or "")
        for _ in range(RETRY_BLOCKS):
            at.chain.seal()
            await at.sync()
            if await at.look() is Due.SET:
                break
        assert [sent.state for sent in await at.sent()] == [SentState.SET, SentState.REFUSED]
        assert [each.state for each in at.settled] == [SentState.REFUSED, SentState.SET]


async def test_a_folder_of_commits_that_cannot_be_read_stops_no_plain_weights(tmp_path: Path) -> None:
    (tmp_path / "commits").write_text("")
    async with setting(tmp_path) as at:
        await at.score({1: 1.0})
        with capture_logs() as logs:
            assert await at.look() is Due.SET
        assert {log["event"] for log in logs if log["log_level"] == "warning"} == {"weights_not_revealed"}
