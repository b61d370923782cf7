"""Generated streams of requests to ours and to other people's servers: whoever accepts a request, sees the same one.

What is compared is what the applications saw: method, target, headers and body, and the order of the answers. Ours may
refuse what others repair; it may never see another request in the same bytes than they do, nor one that all of them
refuse. Every difference is counted under its reason; one without a reason fails.
"""

import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final

import pytest

from tests.http.differences import difference
from tests.http.generated_streams import Stream, stream
from tests.http.others import Answer, answers, installed, running, said
from tests.sampling import NIGHTLY, SEED

pytestmark = [pytest.mark.heavy, pytest.mark.xdist_group("differential")]  # one worker starts all servers

BLOCKS: Final = 10 if NIGHTLY else 1
STREAMS: Final = 1_000 if NIGHTLY else 400
"""In each block, for which all servers are started."""
PEERS: Final = ("hypercorn", "uvicorn", "nginx", "node")
Answered = dict[str, list[list[Answer]]]


@pytest.fixture(scope="module", params=range(BLOCKS), ids=lambda block: f"block {block}")
def streams(request: pytest.FixtureRequest) -> Sequence[Stream]:
    rng = random.Random(f"{SEED} differential {request.param}")
    return [stream(rng) for _ in range(STREAMS)]


@pytest.fixture(scope="module")
def answered(streams: Sequence[Stream]) -> Answered:
    """What each server answered to each stream."""
    with ExitStack() as stack:
        ports = {name: stack.enter_context(running(name)) for name in installed()}

        def all_of(name: str) -> list[list[Answer]]:
            return [answers(said(ports[name], each.packets, pause_s=each.pause_s, timeout_s=20)) for each in streams]

        with ThreadPoolExecutor(len(ports)) as threads:
            return dict(zip(ports, threads.map(all_of, ports), strict=True))


def accepted(found: list[Answer]) -> list[Answer]:
    return [each for each in found if each.status == 200]


def test_every_request_that_came_whole_is_answered_in_its_turn_as_it_was_sent(
    streams: Sequence[Stream], answered: Answered
) -> None:
    wrong = []
    for sent, got in zip(streams, answered["ours"], strict=True):
        sights = [answer.seen for answer in got[: len(sent.whole)]]
        expected = [(each.method, each.target, len(each.body)) for each in sent.whole]
        seen = [each and (each.method, each.target, each.size) for each in sights]
        if seen != expected or (not sent.broken and len(got) != len(sent.whole)):
            wrong.append((sent.raw[:2_000], expected, got))
    assert wrong == []


@pytest.mark.parametrize("name", PEERS)
def test_what_ours_accepts_another_server_sees_as_the_same_request(
    name: str, streams: Sequence[Stream], answered: Answered
) -> None:
    if name not in answered:
        pytest.skip(f"{name} is not installed here")
    reasons, unexplained = Counter[str](), []
    for sent, ours, theirs in zip(streams, answered["ours"], answered[name], strict=True):
        found = difference(name, sent, ours, theirs)
        if found is None:
            reasons["the same"] += 1
        elif found:
            reasons[found] += 1
        else:
            unexplained.append((sent.kind, sent.raw[:1_000], ours, theirs))
    print(f"\n{name}, {STREAMS} streams:")
    for reason, count in reasons.most_common():
        print(f"{count:6} {reason}")
    assert unexplained == []


def test_nothing_is_accepted_that_all_others_refuse(streams: Sequence[Stream], answered: Answered) -> None:
    alone = [
        (each.raw, len(accepted(ours)))
        for at, (each, ours) in enumerate(zip(streams, answered["ours"], strict=True))
        if len(accepted(ours)) > max(len(accepted(answered[name][at])) for name in answered if name != "ours")
    ]
    assert alone == []
