"""Uploads paid for by x402: one authorization an item, sent again as it is, and a new one only when the old is void."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio

from engram.archive import arweave_place
from engram.archive.arweave_place import ArweavePlace
from engram.archive.bundler import Bundler
from engram.archive.errors import Damaged, Missing, PaymentUnknown, PaymentWanted, PlaceUnavailable, TooDear
from engram.archive.item_keys import EthereumKey
from engram.archive.upload_payment import UploadWallet
from engram.http.client import HttpClient
from engram.payments import x402
from engram.payments.evm_rpc import EvmRpc
from engram.payments.networks import BASE, PLAY, Network
from tests.fakes.bundler import PAYEE, Arweave
from tests.fakes.responder import Responder

KEY = EthereumKey(b"\x05" * 32)
RUNS_S = 300
"""How long the terms of the double let an authorization run."""
Opened = Callable[..., ArweavePlace]


@pytest.fixture
def arweave() -> Arweave:
    made = Arweave()
    made.takes_usdc = True
    return made


@pytest.fixture
async def opened(
    arweave: Arweave, nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Opened]:
    url = await nursery.start(Responder(arweave.answer).run)
    client = HttpClient()
    monkeypatch.setattr(arweave_place, "_LOOK_EVERY_S", 0.0)

    def open_(most: int = 1_000_000, network: Network = PLAY) -> ArweavePlace:
        """A place as a new process finds it."""
        chain = EvmRpc(arweave.chain.call, PLAY, 2, head_kept_s=0.0)
        wallet = UploadWallet(KEY, network, chain.look, most, lambda: arweave.now)
        return ArweavePlace(Bundler(client, url, url, url), KEY, "aa", tmp_path, 0, wallet)

    yield open_
    await client.aclose()


def later(arweave: Arweave, seconds: int) -> None:
    """Let time pass, here and on the chain."""
    arweave.now += seconds
    arweave.chain.mine(seconds // 2)


def spooled(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*/*"))


async def test_each_part_is_paid_for_once_at_the_terms_asked(opened: Opened, arweave: Arweave, tmp_path: Path) -> None:
    for name in ("segments/one", "segments/two"):
        await opened().put(name, name.encode())
        await opened().put(name, name.encode())
    assert (len(arweave.charged), len(arweave.payments), len(arweave.chain.used)) == (2, 2, 2)
    signed = x402.decode_payload(arweave.payments[0]).authorization
    assert (signed.payer, signed.pay_to, signed.valid_before) == (KEY.address, PAYEE, arweave.now + RUNS_S)
    assert spooled(tmp_path) == ["segments-one.id", "segments-two.id"]
    assert await opened().get("segments/two", 100) == b"segments/two"


async def test_what_is_free_is_not_paid_for(opened: Opened, arweave: Arweave) -> None:
    arweave.takes_usdc = False
    await opened(most=0).put("segments/one", b"content")
    assert arweave.payments == []
    assert await opened().get("segments/one", 100) == b"content"


async def test_the_price_of_all_parts_is_asked_first_and_held_against_the_limit(
    opened: Opened, arweave: Arweave
) -> None:
    assert await opened().price([100, 100, 5_000]) == 2 * (2 * 612 + 5_512)
    with pytest.raises(TooDear, match=r"cost 0.013472 USDC; at most 0.010000 are paid at once"):
        await opened(most=10_000).price([100, 100, 5_000])
    arweave.usdc_a_byte = -1
    with pytest.raises(PlaceUnavailable, match="no price in USDC"):
        await opened().price([100])


async def test_above_the_limit_nothing_is_signed_and_nothing_stays(
    opened: Opened, arweave: Arweave, tmp_path: Path
) -> None:
    with pytest.raises(TooDear, match=r"at most 0.000010 are paid"):
        await opened(most=10).put("segments/one", b"content")
    assert (arweave.payments, spooled(tmp_path)) == ([], [])
    place = opened(most=900)
    await place.put("segments/one", b"content")
    with pytest.raises(TooDear, match=r"USDC after 0.000"):
        await place.put("segments/two", b"content")
    assert len(arweave.payments) == 1


async def test_what_cannot_be_paid_is_not(opened: Opened, arweave: Arweave, tmp_path: Path) -> None:
    with pytest.raises(PaymentWanted, match="not in USDC on base"):
        await opened(network=BASE).put("segments/one", b"content")
    arweave.asks_legibly = False
    with pytest.raises(PaymentWanted, match="terms cannot be read"):
        await opened().put("segments/one", b"content")
    assert (arweave.payments, spooled(tmp_path)) == ([], [])


async def test_an_answer_that_is_lost_is_looked_for_and_costs_nothing(
    opened: Opened, arweave: Arweave, tmp_path: Path
) -> None:
    arweave.loses_answers, arweave.indexes = 1, False
    with pytest.raises(PlaceUnavailable, match="does not answer"):
        await opened().put("segments/one", b"content")
    assert spooled(tmp_path) == ["segments-one", "segments-one.payment", "segments-one.sent"]
    assert await opened().resume("segments/one")
    assert (len(arweave.charged), len(arweave.payments), len(arweave.chain.used)) == (1, 1, 1)
    assert spooled(tmp_path) == ["segments-one.id"]


async def test_a_payment_that_was_refused_is_sent_again_unchanged_until_its_time_is_over(
    opened: Opened, arweave: Arweave
) -> None:
    arweave.settles = False
    for _ in range(3):
        with pytest.raises(PaymentUnknown, match=r"insufficient_funds.*sent again unchanged"):
            await opened().put("segments/one", b"content")
    assert len(set(arweave.payments)) == 1
    arweave.settles = True  # the key was given money meanwhile
    await opened().put("segments/one", b"content")
    assert (len(arweave.payments), len(set(arweave.payments)), len(arweave.chain.used)) == (4, 1, 1)


async def test_a_new_payment_is_made_once_the_chain_shows_that_the_old_can_never_count(
    opened: Opened, arweave: Arweave
) -> None:
    arweave.settles = False
    with pytest.raises(PaymentUnknown):
        await opened().put("segments/one", b"content")
    arweave.settles = True
    arweave.now += RUNS_S  # by our clock; the chain has no final block of that time yet
    with pytest.raises(PaymentUnknown, match="not final on the chain yet"):
        await opened().put("segments/one", b"content")
    arweave.chain.failing = {"eth_call"}
    with pytest.raises(PaymentUnknown, match="cannot be read from the chain"):
        await opened().put("segments/one", b"content")
    arweave.chain.failing = set()
    assert len(arweave.payments) == 1
    arweave.chain.mine(RUNS_S)
    await opened().put("segments/one", b"content")
    assert (len(set(arweave.payments)), len(arweave.chain.used)) == (2, 1)


async def test_a_payment_that_was_cancelled_is_replaced(opened: Opened, arweave: Arweave) -> None:
    arweave.settles = False
    with pytest.raises(PaymentUnknown):
        await opened().put("segments/one", b"content")
    arweave.chain.cancel(x402.decode_payload(arweave.payments[0]).authorization)
    arweave.settles = True
    later(arweave, RUNS_S)
    await opened().put("segments/one", b"content")
    assert len(set(arweave.payments)) == 2


async def test_what_was_paid_and_lost_is_never_paid_again(opened: Opened, arweave: Arweave, tmp_path: Path) -> None:
    arweave.keeps_what_was_paid = False
    with pytest.raises(PlaceUnavailable, match="answered 500"):
        await opened().put("segments/one", b"content")
    arweave.keeps_what_was_paid = True
    with pytest.raises(PaymentUnknown, match="nonce already used"):
        await opened().put("segments/one", b"content")
    later(arweave, RUNS_S)
    for _ in range(2):
        with pytest.raises(PaymentUnknown, match=r"were paid for it in transaction 0x.*nothing is paid again"):
            await opened().put("segments/one", b"content")
    assert (len(set(arweave.payments)), len(arweave.chain.used)) == (1, 1)
    assert spooled(tmp_path) == ["segments-one", "segments-one.payment", "segments-one.sent"]
    with pytest.raises(Missing):
        await opened().get("segments/one", 100)


async def test_an_authorization_that_cannot_be_read_is_not_replaced(
    opened: Opened, arweave: Arweave, tmp_path: Path
) -> None:
    arweave.settles = False
    with pytest.raises(PaymentUnknown):
        await opened().put("segments/one", b"content")
    (path,) = tmp_path.glob("*/*.payment")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Damaged, match="may be paid, so nothing else is"):
        await opened().put("segments/one", b"content")
    assert len(arweave.payments) == 1


async def test_an_authorization_sent_earlier_counts_towards_the_limit(opened: Opened, arweave: Arweave) -> None:
    arweave.settles = False
    with pytest.raises(PaymentUnknown):
        await opened(most=900).put("segments/one", b"content")
    arweave.settles = True
    place = opened(most=900)
    await place.put("segments/one", b"content")
    with pytest.raises(TooDear):
        await place.put("segments/two", b"content")
