"""`run.py gateway validator` with one hotkey for both: its three streams reach a receiver, across a kill, without one
nonce, signature or commit of a role meeting another's."""

import secrets
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
import trio
from sqlalchemy import select

from engram.chain.epochs import epoch_of
from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from engram.http.errors import HttpError
from engram.ledger import LEDGER_FILE, open_inline
from engram.payments.play_wallet import PlayWallet
from engram.relay.model import EntryState
from engram.relay.tables import relay_outbox, relay_streams
from engram.sdk.gateway import GatewayClient
from engram.sdk.node import NodeClient
from engram.xeris.tables import accepted, submissions
from tests.e2e.gateway_process import FAST, GatewayProcess
from tests.fakes.chain import ChainServer
from tests.fakes.living_chain import NETUID
from tests.shared import free_port
from tests.validator.subnets import SUBTENSOR, VALIDATOR, SmallSubnet, miner_key, write_key
from tests.validator.test_three_validators import TEMPO
from tests.validator.toy_miners import Keeps
from tests.xeris.xeris_process import XerisProcess

BLOCK_S = 0.3
WITHIN_S = 150.0
KINDS = {"memory", "scores", "ranking"}
CHAIN = """
[chain]
source = "rpc"
endpoints = ["{chain}"]
network = "test"
poll_s = 0.5
"""
ROLES = """
[gateway]
hotkey_file = "{key}"
[relay]
url = "http://127.0.0.1:{port}/payloads"
round_s = 3.0
quorum = 1
[validator]
hotkey_file = "{key}"
dry_run = false
round_s = 3.0
timeout_s = 20.0
deadline_s = 60.0
private_addresses = true
planted = 10
"""


class NotesCommits(SmallSubnet):
    """Keeps the blocks in which a commitment was made."""

    def __init__(self) -> None:
        super().__init__()
        self.seal_at_look = False
        self.committed: list[int] = []
        self.put(TEMPO, SUBTENSOR, "Tempo", NETUID)
        commit = self._calls["set_commitment"]

        def noted(who: bytes, arguments: dict[str, Any]) -> None:
            commit(who, arguments)
            self.committed.append(self.head)

        self._calls["set_commitment"] = noted

    def fields_changed(self, fields: dict[str, Any]) -> None:
        fields["tempo"] = TEMPO
        fields["last_step"] = epoch_of(fields["block"], NETUID, TEMPO).first_block


class BothRoles(GatewayProcess):
    def __init__(self, data_dir: Path, settings: str) -> None:
        super().__init__(data_dir, settings=settings)
        self._command.append("validator")


def buy_a_node(url: str) -> None:
    phone, wallet = Keypair.generate(), PlayWallet(secrets.token_bytes(32))
    with GatewayClient(url, phone, wallet) as shop:
        session = shop.create_session("lite", hours=1)
        session = shop.wait_active(session.session_id, timeout_s=WITHIN_S)
    assert session.node_endpoint is not None
    with NodeClient(session.node_endpoint, phone) as node:
        node.ingest_text("What a gateway learns of its nodes is a stream of its own.")


async def states(http: HttpClient, url: str, kind: str) -> Counter[str]:
    """How many outputs of a kind the receiver serves in each state."""
    try:
        answer = await http.request("GET", f"{url}/intelligence?kind={kind}")
    except HttpError:
        return Counter()
    return Counter(item["state"] for item in answer.json()["items"])


@pytest.mark.nightly
@pytest.mark.heavy
async def test_a_gateway_and_a_validator_with_one_hotkey_never_meet_in_a_nonce_a_stream_or_a_commit(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    chain, miner, http = NotesCommits(), Keeps(miner_key(7)), HttpClient()
    port, key = free_port(), write_key(tmp_path / "hotkey", VALIDATOR)
    async with trio.open_nursery() as nursery:
        at_chain = CHAIN.format(chain=await nursery.start(ChainServer(chain).run))
        await nursery.start(miner.run)
        chain.announce({7: int(miner.url.rpartition(":")[2])})

        async def seal() -> None:
            while True:
                chain.seal()
                await trio.sleep(BLOCK_S)

        nursery.start_soon(seal)
        receiver = XerisProcess(tmp_path / "xeris", VALIDATOR.ss58, port=port, besides=at_chain)
        request.addfinalizer(receiver.kill)
        both = BothRoles(tmp_path / "both", FAST + at_chain + ROLES.format(key=key, port=port))
        await trio.to_thread.run_sync(receiver.start)

        async def anchored(least: int) -> None:
            with trio.fail_after(WITHIN_S):
                while True:
                    found = [await states(http, receiver.url, kind) for kind in sorted(KINDS)]
                    if all(each["anchored"] >= least for each in found):
                        return
                    assert both.is_running(), both.log()
                    await trio.sleep(0.5)

        with both:
            await trio.to_thread.run_sync(both.start)
            await trio.to_thread.run_sync(buy_a_node, both.url)
            await anchored(1)
            both.kill()
            await trio.to_thread.run_sync(both.start)
            await anchored(2)
            await trio.to_thread.run_sync(both.terminate)
        receiver.kill()
        await http.aclose()
        nursery.cancel_scope.cancel()

    epochs = [epoch_of(block, NETUID, TEMPO).index for block in chain.committed]
    assert len(epochs) == len(set(epochs)) >= 2, "one commit an epoch for both roles"
    sent = open_inline(tmp_path / "both" / LEDGER_FILE)
    streams = sent.read_now(lambda c: c.execute(select(relay_streams.c.kind, relay_streams.c.signer)).all())
    assert Counter(streams).most_common(1)[0][1] == 1
    assert {kind for kind, _ in streams} >= KINDS
    assert {signer for _, signer in streams} == {VALIDATOR.ss58}
    ends = sent.read_now(lambda c: set(c.scalars(select(relay_outbox.c.state)).all()))
    assert ends <= {str(EntryState.DELIVERED), str(EntryState.PENDING), str(EntryState.SENDING)}, "none was withdrawn"
    taken = open_inline(receiver.ledger)
    verdicts = taken.read_now(lambda c: set(c.scalars(select(submissions.c.verdict)).all()))
    assert verdicts <= {"accepted", "repeated", "permits_unknown", "commitment_unknown"}, "nor refused for good"
    nonces: dict[str, list[str]] = defaultdict(list)
    for kind, nonce in taken.read_now(lambda c: c.execute(select(accepted.c.kind, accepted.c.nonce)).all()):
        nonces[kind].append(nonce)
    assert not set(nonces["memory"]) & set(nonces["scores"])
    assert not set(nonces["memory"]) & set(nonces["ranking"])
    order = select(accepted.c.kind, accepted.c.block).where(accepted.c.kind.in_(KINDS)).order_by(accepted.c.id)
    blocks: dict[str, list[int]] = defaultdict(list)
    for kind, block in taken.read_now(lambda c: c.execute(order).all()):
        blocks[kind].append(block)
    assert all(each == sorted(each) for each in blocks.values()), "each stream in its order"
    sent.close()
    taken.close()
