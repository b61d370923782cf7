"""What /metrics tells of the syncing of the chain."""

from typing import get_args

import msgspec

from engram.chain import Subnets
from engram.chain.model import EndpointHealth, FinalizedBlock, HeadWatch, PermitLost, Registered, SubnetChange
from engram.chain.sync.gauges import KINDS, count_changes, measure
from engram.chain.sync.subnets import SyncState
from engram.clock import ManualClock
from engram.telemetry.metrics import Metrics
from tests.chain.samples import key, metagraph


def lines(metrics: Metrics) -> set[str]:
    return {line for line in metrics.render().decode().splitlines() if line.startswith("engram_chain")}


def test_the_endpoint_that_serves_is_told_and_the_others_are_not() -> None:
    metrics, subnets = Metrics(), Subnets(ManualClock(), (450,), 60.0)
    healths = {"http://one": EndpointHealth(failures=2), "http://two": EndpointHealth()}
    subnets.note(SyncState(endpoint="http://two", endpoints=healths))
    measure(metrics, subnets)
    assert {
        'engram_chain_endpoint_serves{endpoint="http://one"} 0.0',
        'engram_chain_endpoint_serves{endpoint="http://two"} 1.0',
        'engram_chain_endpoint_failures{endpoint="http://one"} 2.0',
    } <= lines(metrics)
    subnets.note(msgspec.structs.replace(subnets.state, endpoints=healths | {"http://two": EndpointHealth(failures=1)}))
    measure(metrics, subnets)
    assert 'engram_chain_endpoint_serves{endpoint="http://two"} 0.0' in lines(metrics)


def test_a_chain_that_was_never_read_grows_old_and_stalls() -> None:
    clock = ManualClock()
    metrics, subnets = Metrics(), Subnets(clock, (450,), 60.0)
    assert not subnets.status().stalled
    clock.advance(61)
    measure(metrics, subnets)
    assert "engram_chain_head_age_seconds 61.0" in lines(metrics)
    assert (subnets.status().stalled, subnets.status().head_age_s) == (True, None)
    subnets.note(SyncState(watch=HeadWatch(FinalizedBlock(9, bytes(32)), clock.monotonic())))
    assert not subnets.status().stalled


def test_changes_are_counted_by_subnet_and_kind() -> None:
    metrics, subnets = Metrics(), Subnets(ManualClock(), (450,), 60.0)
    count_changes(metrics, subnets)
    subnets.publish(metagraph(), [Registered(450, 9, 3, key(3)), Registered(450, 9, 4, key(4))])
    subnets.publish(metagraph(), [PermitLost(450, 10, 3, key(3))])
    assert {
        'engram_chain_changes_total{kind="registered",netuid="450"} 2.0',
        'engram_chain_changes_total{kind="permit_lost",netuid="450"} 1.0',
    } <= lines(metrics)


def test_every_kind_of_change_has_a_name_of_its_own() -> None:
    assert set(KINDS) == set(get_args(SubnetChange))
    assert len(set(KINDS.values())) == len(KINDS)
