"""How incentive and emission changed, against a chain on a real socket that paid otherwise before."""

import json
from typing import Any

import pytest

from engram.chain.errors import CallRefused
from engram.chain.read.node import Json, RpcCall
from engram.chain.read.view import open_view
from engram.chain.registry.earnings import earnings_change
from engram.hotkeys import Keypair
from tests.cli.chains import served
from tests.cli.conftest import Run
from tests.fakes.living_chain import LivingChain

MINER = Keypair.from_uri("//sn450//hot//2")
NEWER = Keypair.from_uri("//sn450//hot//3")
LAST_EPOCH = 1022
"""The block at which the recorded subnet ran its last epoch."""


class PayingChain(LivingChain):
    """It paid the miner less, and knew the newer one not at all, before its last epoch. Old states are dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.kept_from = 900
        self.metagraphs["0xc201"] = self.paid

    def paid(self, scale: bytes) -> bytes:
        kind = self._runtime.runtime_api_map()["SubnetInfoRuntimeApi"]["get_metagraph"]["output"]
        fields = self._runtime.decode(kind, scale)
        if fields["block"] < LAST_EPOCH:
            fields["incentives"][2], fields["emission"][2] = 13_107, 3_000_000_000
            fields["hotkeys"][3] = Keypair.from_uri("//somebody before").ss58
        encoded: bytes = self._runtime.encode(kind, fields)
        return encoded

    def answer(self, call: RpcCall) -> Json:
        number = self.number(call.params[-1]) if call.method.startswith("state_") and call.params else None
        if number is not None and number < self.kept_from:
            return CallRefused(4003, f"Client error: UnknownBlock: State already discarded for {call.params[-1]}")
        return super().answer(call)


def status(run: Run, chain: LivingChain, *more: str, hotkey: Keypair = MINER) -> tuple[dict[str, Any], str]:
    """What the command shows: as a document, and its line of the change."""
    chain.seal_at_look = False
    with served(chain) as server:
        words = ["subnet", "status", "--netuid", "450", "--endpoint", server.url, "--hotkey", hotkey.ss58, "--no-probe"]
        shown = run(*words, *more, "--format", "json")
        lines = run(*words, *more).out.splitlines()
    assert shown.code == 0, shown.err
    found: dict[str, Any] = json.loads(shown.out)
    (line,) = [line for line in lines if line.startswith("Change: ")]
    return found, line


def test_status_shows_what_the_last_epoch_changed(run: Run) -> None:
    found, line = status(run, PayingChain())
    assert (found["incentive"], found["emission_rao"]) == (0.620966, 2_800_630_121)
    assert (found["since_block"], found["incentive_change"], found["emission_change_rao"]) == (
        LAST_EPOCH - 1,
        0.420966,
        -199_369_879,
    )
    assert line == "Change: incentive +0.420966, emission -0.199369879 since block 1021"


def test_since_names_the_block_and_nothing_changed_within_an_epoch(run: Run) -> None:
    found, line = status(run, PayingChain(), "--since", str(LAST_EPOCH))
    assert (found["incentive_change"], found["emission_change_rao"]) == (0.0, 0)
    assert line == "Change: incentive +0.000000, emission +0.000000000 since block 1022"


@pytest.mark.parametrize(
    ("since", "hotkey", "said"),
    [
        pytest.param("850", MINER, "State already discarded", id="dropped by the endpoint"),
        pytest.param("850", MINER, "--network archive has old blocks", id="and who has it is said"),
        pytest.param("1100", MINER, "block 1100 is not before block 1100", id="not earlier"),
        pytest.param("1021", NEWER, "the hotkey was not registered at block 1021", id="registered since"),
    ],
)
def test_a_change_that_cannot_be_known_is_none_with_its_reason(
    run: Run, since: str, hotkey: Keypair, said: str
) -> None:
    found, line = status(run, PayingChain(), "--since", since, hotkey=hotkey)
    assert (found["incentive_change"], found["emission_change_rao"]) == (None, None)
    assert found["incentive"] > 0, "what is earned now is shown all the same"
    assert said in found["change_unknown_because"]
    assert line == f"Change: not known ({found['change_unknown_because']})"


def test_an_endpoint_that_shows_another_block_for_the_earlier_one_is_not_believed(run: Run) -> None:
    chain = PayingChain()
    chain.replace["chain_getBlockHash"] = chain.hash(1050)
    found, _ = status(run, chain)
    assert "block 1050 in the place of block 1021" in found["change_unknown_because"]


async def test_a_subnet_that_has_run_no_epoch_has_no_change() -> None:
    chain = PayingChain()
    kind = chain._runtime.runtime_api_map()["SubnetInfoRuntimeApi"]["get_metagraph"]["output"]

    def young(scale: bytes) -> bytes:
        encoded: bytes = chain._runtime.encode(kind, {**chain._runtime.decode(kind, scale), "last_step": 0})
        return encoded

    chain.metagraphs["0xc201"] = young
    view = await open_view([chain])
    change = await earnings_change(view, await view.metagraph(450, 0.0), MINER.public_key, None)
    assert change.unknown_because == "the subnet has run no epoch yet"
    since = await earnings_change(view, await view.metagraph(450, 0.0), MINER.public_key, 1_000)
    assert (since.incentive, since.emission_rao) == (0.0, 0)


def test_a_chain_that_ships_as_a_recording_has_one_block(run: Run) -> None:
    ran = run("subnet", "status", "--network", "recorded", "--netuid", "450", "--hotkey", MINER.ss58, "--no-probe")
    assert "Change: not known (block 1021 was not read: " in ran.out
