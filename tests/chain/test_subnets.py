"""What is told of changes."""

from engram.chain import Subnets
from engram.chain.model import Axon, AxonMoved, PermitLost, Registered, Removed, Replaced, SubnetChange
from engram.chain.sync.subnets import CHANGES_SHOWN, in_words
from engram.clock import ManualClock
from engram.hotkeys import ss58
from tests.chain.samples import key, metagraph


def test_each_change_is_told_in_words() -> None:
    hotkey = ss58.encode(key(7))
    told: list[tuple[SubnetChange, str]] = [
        (Registered(450, 9, 3, key(7)), f"{hotkey} registered"),
        (Replaced(450, 9, 3, key(8), key(7)), f"{hotkey} replaced {ss58.encode(key(8))}"),
        (Removed(450, 9, 3, key(7)), f"{hotkey} removed"),
        (PermitLost(450, 9, 3, key(7)), f"{hotkey} lost its validator permit"),
        (AxonMoved(450, 9, 3, key(7), None), f"{hotkey} serves no longer"),
        (AxonMoved(450, 9, 3, key(7), Axon("2001:db8::1", 80, 1, 4, 9)), f"{hotkey} serves at 2001:db8::1 port 80"),
    ]
    assert [in_words(change) for change, _ in told] == [f"subnet 450 block 9 uid 3: {words}" for _, words in told]


def test_the_status_shows_the_newest_changes() -> None:
    subnets = Subnets(ManualClock(), (450,), 60.0)
    subnets.publish(metagraph(), [Registered(450, 9, uid, key(uid)) for uid in range(30)])
    shown = subnets.status().changes
    assert len(shown) == CHANGES_SHOWN
    assert "uid 29:" in shown[-1]
