"""The tree of each role as it is written down: names, order, strategies, restart policy."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from actors import Backoff, ChildSpec, Intensity, SupervisorSpec
from config.model import Settings
from engram.hotkeys import Keypair, ss58
from engram.proxy.min_stake import KeptThreshold
from engram.proxy.settings import load
from engram.proxy.settings.environment import PATH_VARIABLE
from engram.roles import facilitator, gateway, miner, proxy, validator, xeris
from engram.roles.process import spare
from engram.roles.shared import Shared, together

GATEWAY = """
root                      one_for_one
  ledger
  loop_lag                disable
  facilitator
  chain                   disable
  payments                rest_for_one
    purchases             dynamic
    payment_verifier
    facilitator_supported
  fleet                   rest_for_one
    sagas                 dynamic
    node_watch            one_for_one
      local
      docker
    provisioner
  certifier               disable
  node_announcers         dynamic
  node_announcing         disable
  node_committing         disable
  stats_poller            disable
  relay_emitter           disable
  relay_rounds            disable
  relay_anchors           disable
  event_feed              disable
  control                 disable
  sales_watch             disable
  ops
  http
"""
NODE = """
node                      one_for_one
  folder
  truth
  notebook
  store
  embedder
  words                   disable
  windows                 disable
  readiness               disable
  loop_lag
  storage
  uptime
  chain                   disable
  announcer               disable
  ops                     disable
  lifetime
  http
"""
PROXY = """
root                      one_for_one
  ledger
  loop_lag                disable
  chain                   disable
  jobs                    disable
  checks                  disable
  min_stake               disable
  reloading               disable
  ops
  proxy
"""
VALIDATOR = """
root                      one_for_one
  ledger
  loop_lag                disable
  validator_chain         disable
  relay_emitter           disable
  rounds                  disable
  weights                 disable
  proposer                disable
  control                 disable
  ops
"""
XERIS = """
root                      one_for_one
  ledger
  loop_lag                disable
  xeris_chain             disable
  xeris_permits           disable
  xeris_purge             disable
  ops
  xeris
"""
FACILITATOR = """
root                      one_for_one
  ledger
  loop_lag                disable
  facilitator
"""


def lines(spec: ChildSpec | SupervisorSpec, depth: int = 0) -> Iterator[str]:
    policy = spec.strategy if isinstance(spec, SupervisorSpec) else spec.on_exceed.replace("escalate", "")
    yield f"{'  ' * depth + spec.id:26}{policy}".rstrip()
    for child in spec.children if isinstance(spec, SupervisorSpec) else ():
        yield from lines(child, depth + 1)


def drawn(spec: SupervisorSpec) -> str:
    return "\n".join(["", *lines(spec), ""])


def shared(**settings: Any) -> Any:
    """What the trees read when they are written down; nothing of it is started."""
    double = MagicMock(spec=Shared)
    for name in ("registry", "metrics", "clock", "ids", "ledger", "http"):
        setattr(double, name, MagicMock())
    double.settings = Settings(**settings)
    double.folder = Path("data")
    double.is_worker = False
    return double


def ports() -> Any:
    """Ports whose backends have names; nothing of them is called."""
    double = MagicMock()
    double.fleet.backends.all = [MagicMock(), MagicMock()]
    for backend, name in zip(double.fleet.backends.all, ("local", "docker"), strict=True):
        backend.name = name
    return double


def test_the_tree_of_a_gateway() -> None:
    assert drawn(gateway.tree(shared(), ports())) == GATEWAY


def test_a_worker_of_a_gateway_ends_with_its_parent() -> None:
    double = shared()
    double.is_worker = True
    assert drawn(gateway.tree(double, ports())) == GATEWAY.replace(
        "  facilitator\n", "  parent                  disable\n  facilitator\n", 1
    )


def validator_ports() -> Any:
    double = MagicMock()
    double.quorum.children.return_value = [spare("proposer", MagicMock())]
    return double


def test_the_tree_of_a_validator() -> None:
    assert drawn(validator.tree(shared(), validator_ports())) == VALIDATOR


def test_the_tree_of_a_receiver() -> None:
    assert drawn(xeris.tree(shared(), Keypair.from_seed(bytes(32)))) == XERIS


def test_roles_of_one_process_share_what_is_one_and_keep_what_is_their_own() -> None:
    """Each follows the chain for itself and has its own surface; there is one emitter, and one operator's listener."""
    trees = [
        gateway.tree(shared(), ports()),
        validator.tree(shared(), validator_ports()),
        xeris.tree(shared(), Keypair.from_seed(bytes(32))),
    ]
    joined = [child.id for child in together(trees).children]
    assert {"chain", "validator_chain", "xeris_chain", "http", "xeris"} <= set(joined)
    common = {"ledger", "loop_lag", "relay_emitter", "ops", "control"}
    assert sorted(joined) == sorted({child.id for tree in trees for child in tree.children})
    assert all(joined.count(name) == 1 for name in common)


def test_the_tree_of_a_node() -> None:
    assert drawn(miner.tree(MagicMock(), MagicMock())) == NODE


def test_a_node_without_a_chain_has_no_child_for_it() -> None:
    node = MagicMock()
    node.chain.syncer = node.chain.announcer = None
    assert drawn(miner.tree(node, MagicMock())) == NODE.replace(f"  chain{'disable':>26}\n", "").replace(
        f"  announcer{'disable':>22}\n", ""
    )


async def proxy_tree(folder: Path, **auth: str) -> SupervisorSpec:
    """The tree of a proxy with these settings of who may call."""
    document = {"auth": {"miner_hotkey": ss58.encode(bytes(range(32))), **auth}}
    (folder / "config.json").write_text(json.dumps(document))
    loaded = load({PATH_VARIABLE: str(folder)}, folder)
    role = MagicMock(spec=proxy.Proxy, loaded=loaded, spool_folder=folder, signer=None, certificates=None)
    role.kept_threshold = KeptThreshold(folder)
    return await proxy._Parts(shared(), role).tree()


async def test_the_tree_of_a_proxy(tmp_path: Path) -> None:
    tree = await proxy_tree(tmp_path)
    assert drawn(tree) == PROXY
    assert (tree.children[0].id, tree.children[-1].id) == ("ledger", "proxy"), "the public surface drains first"
    chain = tree.children[2]
    assert isinstance(chain, ChildSpec)
    assert chain.intensity == Intensity(1_000_000, 1.0), "an endpoint that never answers ends nothing"


async def test_a_proxy_without_a_chain_has_no_child_for_it(tmp_path: Path) -> None:
    tree = await proxy_tree(tmp_path, chain_endpoint="")
    assert drawn(tree) == PROXY.replace(f"  chain{'disable':>26}\n", "")


def test_the_tree_of_a_facilitator() -> None:
    assert drawn(facilitator.tree(shared())) == FACILITATOR


def test_roles_named_together_have_what_they_share_once() -> None:
    p = shared()
    assert drawn(together([facilitator.tree(p), gateway.tree(p, ports())])) == GATEWAY


def test_the_play_facilitator_is_no_part_of_a_gateway_with_another_one() -> None:
    settings = Settings()
    payments = type(settings.payments)(facilitator_url="https://facilitator.example")
    assert drawn(gateway.tree(shared(payments=payments), ports())) == GATEWAY.replace("  facilitator\n", "")


def test_the_play_facilitator_refuses_to_run_outside_local() -> None:
    with pytest.raises(ValueError, match="does not run in 'testnet'"):
        facilitator.tree(shared(environment="testnet"))


@pytest.mark.parametrize("name", ["chain", "stats_poller", "relay_emitter", "event_feed", "control", "sales_watch"])
def test_what_a_gateway_can_do_without_never_ends_it(name: str) -> None:
    (child,) = [child for child in gateway.tree(shared(), ports()).children if child.id == name]
    assert isinstance(child, ChildSpec)
    assert (child.backoff, child.intensity) == (Backoff(0.2, 30.0, reset_after_s=60.0), Intensity(20, 600.0))
    assert child.on_exceed == "disable"


def test_the_public_surface_stops_first_and_the_ledger_last() -> None:
    children = [child.id for child in gateway.tree(shared(), ports()).children]
    assert (children[0], children[-1]) == ("ledger", "http")
