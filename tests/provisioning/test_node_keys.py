"""The pool of node keys, and ports, in a real ledger."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engram.clock import ManualClock
from engram.hotkeys import Keypair, wallet
from engram.ledger.inline import InlineLedger, open_inline
from engram.provisioning import NoCapacity, NodeKeyError, NodeRecord, NodeState, node_keys, records
from tests.provisioning.fleets import CONTROLLER, World

ONE, TWO = b"\x0a" * 32, b"\x0b" * 32


@pytest.fixture
def ledger() -> Iterator[InlineLedger]:
    ledger = open_inline()
    yield ledger
    ledger.close()


def add(ledger: InlineLedger, public_key: bytes, at: float = 1.0) -> None:
    ledger.write_now(lambda c: node_keys.add(c, public_key, Path("k"), "added", at))


def test_a_key_is_leased_to_one_session_at_a_time(ledger: InlineLedger) -> None:
    add(ledger, ONE)
    first = ledger.write_now(lambda c: node_keys.lease(c, "s1", CONTROLLER, 2.0))
    assert first is not None
    assert (first.public_key, first.session_id) == (ONE, "s1")
    assert ledger.write_now(lambda c: node_keys.lease(c, "s1", CONTROLLER, 3.0)) == first
    assert ledger.write_now(lambda c: node_keys.lease(c, "s2", CONTROLLER, 3.0)) is None
    assert not ledger.write_now(node_keys.is_free)
    ledger.write_now(lambda c: node_keys.release(c, "s1"))
    assert ledger.write_now(node_keys.is_free)
    assert ledger.write_now(lambda c: node_keys.lease(c, "s2", CONTROLLER, 3.0)) is not None


def test_a_key_whose_file_another_gateway_has_is_not_leased_and_one_held_is_given_back(ledger: InlineLedger) -> None:
    add(ledger, ONE)
    add(ledger, TWO, at=5.0)
    is_here = lambda key: key.public_key == TWO  # noqa: E731
    assert ledger.write_now(lambda c: node_keys.lease(c, "s", CONTROLLER, 6.0)).public_key == ONE  # type: ignore[union-attr]
    assert ledger.write_now(lambda c: node_keys.is_free(c, is_here))
    again = ledger.write_now(lambda c: node_keys.lease(c, "s", CONTROLLER, 7.0, is_here))
    assert again is not None
    assert again.public_key == TWO
    assert ledger.write_now(node_keys.is_free)
    assert not ledger.write_now(lambda c: node_keys.is_free(c, is_here))
    assert ledger.write_now(lambda c: node_keys.lease(c, "t", CONTROLLER, 8.0, is_here)) is None


def test_a_key_that_rested_longest_is_taken_first(ledger: InlineLedger) -> None:
    add(ledger, ONE)
    ledger.write_now(lambda c: node_keys.lease(c, "s1", CONTROLLER, 2.0))
    ledger.write_now(lambda c: node_keys.release(c, "s1"))
    add(ledger, TWO, at=5.0)
    leased = ledger.write_now(lambda c: node_keys.lease(c, "s2", CONTROLLER, 6.0))
    assert leased is not None
    assert leased.public_key == TWO


def test_a_phones_key_never_serves_as_a_nodes(ledger: InlineLedger) -> None:
    add(ledger, CONTROLLER)
    assert ledger.write_now(lambda c: node_keys.lease(c, "s", CONTROLLER, 2.0)) is None
    World(ledger, clock=ManualClock()).sell()
    with pytest.raises(NodeKeyError, match="key of a client"):
        ledger.write_now(lambda c: node_keys.add(c, CONTROLLER, Path("k"), "added", 1.0))


def test_a_retired_key_is_leased_no_more_and_may_come_back(ledger: InlineLedger) -> None:
    add(ledger, ONE)
    with pytest.raises(NodeKeyError, match="already"):
        add(ledger, ONE)
    assert ledger.write_now(lambda c: node_keys.retire(c, ONE, 2.0)).retired_at == 2.0
    assert ledger.write_now(lambda c: node_keys.retire(c, ONE, 9.0)).retired_at == 2.0
    assert ledger.write_now(lambda c: node_keys.lease(c, "s", CONTROLLER, 3.0)) is None
    assert ledger.write_now(node_keys.count_usable) == 0
    add(ledger, ONE, at=4.0)
    assert ledger.write_now(node_keys.count_usable) == 1
    assert [k.retired_at for k in ledger.write_now(node_keys.list_keys)] == [None]
    with pytest.raises(NodeKeyError, match="not in the pool"):
        ledger.write_now(lambda c: node_keys.retire(c, TWO, 2.0))


async def test_a_generated_key_is_a_wallet_file_for_the_owner_alone(ledger: InlineLedger, tmp_path: Path) -> None:
    await node_keys.generate(ledger, tmp_path / "hotkeys", 1.0)
    (key,) = ledger.write_now(node_keys.list_keys)
    assert Path(key.path).stat().st_mode & 0o777 == 0o600
    assert wallet.read_hotkey_file(key.path).public_key == key.public_key
    assert key.source == "generated"
    assert node_keys.write_key(tmp_path, Keypair.generate()).exists()


async def test_a_generated_key_is_found_in_a_data_folder_that_has_moved(ledger: InlineLedger, tmp_path: Path) -> None:
    """Bug: its path is in the ledger as it was, so that nodes of a moved folder did not start."""
    await node_keys.generate(ledger, tmp_path / "old" / "hotkeys", 1.0)
    (tmp_path / "old").rename(tmp_path / "new")
    (key,) = ledger.write_now(node_keys.list_keys)
    found = node_keys.file_of(key, tmp_path / "new" / "hotkeys")
    assert wallet.read_private_hotkey_file(found).public_key == key.public_key


def test_a_key_that_was_added_stays_where_the_operator_has_it(ledger: InlineLedger, tmp_path: Path) -> None:
    add(ledger, ONE)
    (key,) = ledger.write_now(node_keys.list_keys)
    assert node_keys.file_of(key, tmp_path) == Path(key.path)


def a_node(word: str, port: int, at: float, state: NodeState = NodeState.LAUNCHING) -> NodeRecord:
    return NodeRecord(
        token=word, session_id=word, backend="local", state=state, port=port, reference=None, hotkey=None, created_at=at
    )


def test_ports_go_round_and_are_held_until_the_node_is_gone(ledger: InlineLedger) -> None:
    def allocate() -> int:
        return ledger.write_now(lambda c: records.allocate_port(c, 100, 3))

    for number, expected in enumerate((100, 101, 102)):
        assert allocate() == expected
        node = a_node(f"n{number}", expected, float(number))
        ledger.write_now(lambda c: records.insert_launching(c, node))  # noqa: B023  # called at once
    with pytest.raises(NoCapacity):
        allocate()
    ledger.write_now(lambda c: records.mark_gone(c, "n1", 9.0))
    assert allocate() == 101
    assert not ledger.write_now(lambda c: records.mark_running(c, "n1", "{}"))


def test_a_port_that_another_program_has_is_passed_over(ledger: InlineLedger) -> None:
    assert ledger.write_now(lambda c: records.allocate_port(c, 100, 3, {100, 101, 7})) == 102
    with pytest.raises(NoCapacity):
        ledger.write_now(lambda c: records.allocate_port(c, 100, 2, {100, 101}))
