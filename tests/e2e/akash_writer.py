"""Another program with the key of the gateway's account on Akash: it deposits into the account's escrows meanwhile."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import trio

from config.model import AkashSettings, Settings
from engram.clock import SystemClock
from engram.http.client import HttpClient
from engram.ledger.inline import open_inline
from engram.provisioning.akash.account import Signer
from engram.provisioning.akash.cosmos import Coin
from engram.provisioning.akash.factory import make_parts
from engram.provisioning.akash.messages import AccountDeposit, Deposit, EscrowID, EscrowScope
from engram.provisioning.akash.ports import AkashParts
from engram.provisioning.akash.transactions import Outgoing, Subject, TxState
from engram.telemetry.metrics import Metrics

PAUSE_S: Final = 0.05


class Writer:
    """What it did."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.states: list[TxState] = []

    async def run(self, settings: Settings, signer: Signer) -> None:
        ledger, http = open_inline(), HttpClient()
        try:
            parts = make_parts(settings, signer, ledger, "other", http, SystemClock(), Metrics())
            while not self.stop.is_set():
                for info in await parts.chain.deployments():
                    await self._deposit(parts, info.dseq)
                await trio.sleep(PAUSE_S)
        finally:
            await http.aclose()
            ledger.close()

    async def _deposit(self, parts: AkashParts, dseq: int) -> None:
        account = EscrowID(EscrowScope.DEPLOYMENT, f"{parts.chain.owner}/{dseq}")
        message = AccountDeposit(parts.chain.owner, account, Deposit(Coin("uact", "1")))
        made = await parts.sender.prepare((message,), Subject.DEPOSIT, None)
        if isinstance(made, Outgoing) and await parts.sender.commit(made):
            self.states.append((await parts.sender.follow(made)).state)


@contextmanager
def second_writer(endpoints: Sequence[str], chain_id: str, signer: Signer) -> Iterator[Writer]:
    """Deposit until the block is left."""
    akash = AkashSettings(endpoints=tuple(endpoints), chain_id=chain_id, poll_s=0.2)
    writer = Writer()
    thread = threading.Thread(target=trio.run, args=(writer.run, Settings(akash=akash), signer), daemon=True)
    thread.start()
    try:
        yield writer
    finally:
        writer.stop.set()
        thread.join(60.0)
        assert not thread.is_alive(), "the second writer waits for a transaction that was lost"
