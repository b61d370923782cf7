"""`engram akash list|orphans|close|costs|balance` on the double, beside the ledger of a gateway."""

import json
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from config.model import Settings
from engram.cli.doctor.akash import akash
from engram.ledger import LEDGER_FILE, facts
from engram.provisioning.akash import records, transactions
from engram.provisioning.akash.account import write_key_file
from engram.provisioning.akash.messages import DeploymentID, UpdateDeployment
from engram.provisioning.akash.transactions import Subject, TxState
from tests.cli.conftest import Run
from tests.doubles.akash.double import Options
from tests.provisioning.akash.worlds import CHAIN_ID, KEY, KEY_TEXT, QUICK, World, world

IN_TIME = Options(block_s=0.1, watch_s=0.2)
"""A chain by the machine's clock, which the commands go by: a block of the future is not believed."""
HASTY = msgspec.structs.replace(QUICK, bids_first_s=0.2, bids_enough_s=0.4)


class Cli:
    """Runs commands in a thread, with the double as the chain."""

    def __init__(self, made: World, run: Run, folder: Path) -> None:
        self.world = made
        self._run = run
        self._settings = {
            "data_dir": str(folder),
            "akash.chain_id": CHAIN_ID,
            "akash.owner_address": KEY.address,
            "akash.key_file": str(folder / "key"),
            "akash.endpoints": ",".join(made.double.endpoints),
            "akash.poll_s": "0.05",
        }

    def settings(self, **changes: str) -> Settings:
        """The settings of the gateway that runs on Akash, with the key file."""
        given = self.world.settings
        named = msgspec.structs.replace(given.akash, key_file=self._settings["akash.key_file"], **changes)
        where = msgspec.structs.replace(given.provisioning, backends=("akash",))
        return msgspec.structs.replace(given, akash=named, provisioning=where)

    def set(self, key: str, value: str) -> None:
        """Give every command from now on that setting."""
        self._settings[key] = value

    async def __call__(self, *words: str) -> Any:
        sets = [part for key, value in self._settings.items() for part in ("--set", f"{key}={value}")]
        return await trio.to_thread.run_sync(lambda: self._run("akash", *words, *sets))

    async def json(self, *words: str) -> list[Any]:
        (line,) = [  # the gateway's part logs on the same output
            line for line in (await self(*words, "--json")).out.splitlines() if line.startswith(("[", "{"))
        ]
        found = json.loads(line)
        return found if isinstance(found, list) else [found]


@pytest.fixture
async def cli(run: Run, tmp_path: Path) -> AsyncIterator[Cli]:
    write_key_file(tmp_path / "key", KEY_TEXT)
    async with world(IN_TIME, HASTY, tmp_path / LEDGER_FILE) as made:
        yield Cli(made, run, tmp_path)


async def test_deployments_are_listed_closed_and_accounted_for(cli: Cli) -> None:
    await cli.world.backend.launch(cli.world.spec())
    (row,) = cli.world.rows()
    (listed,) = await cli.json("list")
    assert (listed["dseq"], listed["whose"], listed["session"]) == (row.dseq, "session", "s1")
    assert (await cli("orphans")).code == 0
    refused = await cli("close", str(row.dseq))
    assert refused.code == 1
    assert "engram sessions stop s1" in refused.err
    an_hour_ago = time.time() - 3600.0  # of this machine's clock, which the command goes by
    cli.world.ledger.write_now(partial(records.set_values, dseq=row.dseq, created_at=an_hour_ago))
    (cost,) = await cli.json("costs")
    assert (cost["session"], cost["final"]) == ("s1", False)
    assert cost["cost_act"] > 0
    sent = cli.world.ledger.write_now(partial(transactions.of_deployment, dseq=row.dseq))
    assert cost["fees_akt"] == sum(one.fee_uakt for one in sent) / 1e6 > 0
    (balance,) = await cli.json("balance")
    assert await cli.json("wallet", "balance") == [balance]
    assert (balance["address"], 990 < balance["act"] < 1_000, 990 < balance["akt"] < 1_000) == (KEY.address, True, True)


async def test_an_orphan_is_found_and_closed_by_hand(cli: Cli) -> None:
    await cli.world.backend.launch(cli.world.spec())
    (row,) = cli.world.rows()
    cli.world.forget(row.dseq)
    foreign = await cli("close", str(row.dseq))
    assert foreign.code == 0
    assert cli.world.active() == []
    assert (await cli("close", "17")).code == 1


async def test_one_whose_manifest_others_changed_is_closed_only_when_that_is_said(cli: Cli) -> None:
    await cli.world.backend.launch(cli.world.spec())
    (row,) = cli.world.rows()
    sender = cli.world.make_parts().sender
    outgoing = await sender.prepare(
        (UpdateDeployment(DeploymentID(KEY.address, row.dseq), b"\1" * 32),), Subject.CREATE, None
    )
    assert isinstance(outgoing, transactions.Outgoing)
    await sender.commit(outgoing)
    assert (await sender.follow(outgoing)).state is TxState.INCLUDED
    refused = await cli("close", str(row.dseq))
    assert (refused.code, "--foreign" in refused.err) == (2, True)
    assert cli.world.active() == [row.dseq]
    assert (await cli("close", str(row.dseq), "--foreign")).code == 0
    assert cli.world.active() == []


async def test_a_ledger_that_was_moved_or_cannot_be_read_judges_no_deployment(cli: Cli) -> None:
    await cli.world.backend.launch(cli.world.spec())
    (row,) = cli.world.rows()
    cli.world.forget(row.dseq)  # the file of before the move knows nothing of what is sold since
    cli.world.ledger.write_now(lambda c: facts.put(c, facts.MOVED_TO, "postgresql://engram@db/engram"))
    for words in (("list",), ("orphans",), ("close", str(row.dseq)), ("costs",)):
        refused = await cli(*words)
        assert (refused.code, "was moved to postgresql://engram@db/engram" in refused.err) == (1, True)
    cli.set("ledger.url", "postgresql://engram@127.0.0.1:1/engram")
    for words in (("list",), ("orphans",), ("close", str(row.dseq)), ("costs",)):
        refused = await cli(*words)
        assert (refused.code, "cannot be reached" in refused.err) == (1, True)
    cli.set("ledger.url", "")
    cli.set("data_dir", "elsewhere")
    for words in (("list",), ("orphans",), ("close", str(row.dseq)), ("costs",)):
        refused = await cli(*words)
        assert (refused.code, "there is no ledger at" in refused.err) == (1, True)
    assert cli.world.active() == [row.dseq]


async def test_the_doctor_looks_at_key_endpoints_versions_and_balances(cli: Cli) -> None:
    healthy = {finding.what: finding.verdict for finding in await akash(cli.settings())}
    assert healthy == {"akash.key_file": "good", "akash": "good", "akash AKT": "good", "akash ACT": "good"}
    cli.world.double.chain.drain(KEY.address, "uact")
    cli.world.double.faults.nodes[0].syncing = True
    found = {finding.what: (finding.verdict, finding.text) for finding in await akash(cli.settings())}
    assert found["akash ACT"] == ("bad", "0 ACT for deployments, the alarm is at 20")
    assert found["akash.endpoints"][0] == "note"
    cli.world.double.faults.nodes[1].missing = ("/akash/market",)
    found = {finding.what: (finding.verdict, finding.text) for finding in await akash(cli.settings())}
    assert found["akash"][0] == "bad"
    assert "does not speak akash.market.v1beta5" in found["akash"][1]
    other = cli.settings(owner_address="akash1" + "q" * 38)
    assert {f.what: f.verdict for f in await akash(other)}["akash.owner_address"] == "bad"
