"""The saga of a deployment as its table says, and in a world that does whatever it likes."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.provisioning.akash import events, rules
from engram.provisioning.akash.events import Event, Refusal
from engram.provisioning.akash.model import Deployment, DeploymentState
from engram.provisioning.akash.rules import Budgets, Decision, Sign, Step
from tests.provisioning.akash.deployments import a_bid, a_row, limits

S = DeploymentState
BUDGETS = Budgets()
OTHER = events.Refused(Refusal.OTHER, "x")


def decide(row: Deployment, event: Event, now: float = 0.0) -> Decision:
    return rules.decide(row, event, now, BUDGETS)


@pytest.mark.parametrize(
    ("state", "event", "now", "next_state", "sign"),
    [
        (S.CREATING, events.Included(), 0.0, S.BIDDING, None),
        (S.CREATING, events.Exists(), 0.0, S.BIDDING, None),
        (S.CREATING, events.NotIncluded(), 0.0, S.CREATING, Sign.CREATE),
        (S.CREATING, events.Refused(Refusal.NO_FUNDS), 0.0, S.CLOSED, None),
        (S.CREATING, OTHER, 0.0, S.CLOSED, None),
        (S.CREATING, events.Close("over"), 0.0, S.CREATING, None),
        (S.BIDDING, events.Bids((), limits()), 119.0, S.BIDDING, None),
        (S.BIDDING, events.Bids((), limits()), 120.0, S.CLOSING, Sign.CLOSE),
        (S.BIDDING, events.Bids((a_bid(),), limits()), 44.0, S.BIDDING, None),
        (S.BIDDING, events.Bids((a_bid(),), limits()), 45.0, S.LEASING, Sign.LEASE),
        (S.BIDDING, events.Bids((a_bid("a"), a_bid("b"), a_bid("c")), limits()), 9.0, S.BIDDING, None),
        (S.BIDDING, events.Bids((a_bid("a"), a_bid("b"), a_bid("c")), limits()), 10.0, S.LEASING, Sign.LEASE),
        (S.BIDDING, events.ChainClosed(), 0.0, S.CLOSED, None),
        (S.LEASING, events.Included(), 0.0, S.DELIVERING, None),
        (S.LEASING, events.Exists(), 0.0, S.DELIVERING, None),
        (S.LEASING, events.NotIncluded(), 0.0, S.LEASING, Sign.LEASE),
        (S.LEASING, OTHER, 0.0, S.CLOSING, Sign.CLOSE),
        (S.LEASING, events.Refused(Refusal.BID_GONE), 0.0, S.BIDDING, None),
        (S.LEASING, events.Refused(Refusal.GONE), 0.0, S.CLOSED, None),
        (S.DELIVERING, events.Accepted(), 0.0, S.STARTING, None),
        (S.DELIVERING, events.NoLeaseYet(), 59.0, S.DELIVERING, None),
        (S.DELIVERING, events.NoLeaseYet(), 60.0, S.CLOSING, Sign.CLOSE),
        (S.DELIVERING, events.ProviderFailed(), 59.0, S.DELIVERING, None),
        (S.DELIVERING, events.ProviderFailed(), 60.0, S.CLOSING, Sign.CLOSE),
        (S.DELIVERING, events.ManifestRejected(), 0.0, S.CLOSING, Sign.CLOSE),
        (S.DELIVERING, events.LeaseEnded(), 0.0, S.CLOSING, Sign.CLOSE),
        (S.STARTING, events.Ready("http://n"), 0.0, S.SERVING, None),
        (S.STARTING, events.NotReady(), 299.0, S.STARTING, None),
        (S.STARTING, events.NotReady(), 300.0, S.CLOSING, Sign.CLOSE),
        (S.STARTING, events.ProviderFailed(), 299.0, S.STARTING, None),
        (S.STARTING, events.ProviderFailed(), 300.0, S.CLOSING, Sign.CLOSE),
        (S.SERVING, events.Resend(), 0.0, S.DELIVERING, None),
        (S.SERVING, events.LeaseEnded(), 0.0, S.CLOSING, Sign.CLOSE),
        (S.SERVING, events.ChainClosed(), 0.0, S.CLOSED, None),
        (S.SERVING, events.Close("over"), 0.0, S.CLOSING, Sign.CLOSE),
        (S.CLOSING, events.Included(), 0.0, S.CLOSED, None),
        (S.CLOSING, events.Refused(Refusal.GONE), 0.0, S.CLOSED, None),
        (S.CLOSING, events.NotIncluded(), 0.0, S.CLOSING, Sign.CLOSE),
        (S.CLOSING, OTHER, 0.0, S.CLOSING, Sign.CLOSE),
        (S.CLOSING, events.Close("over"), 0.0, S.CLOSING, None),
        (S.CLOSED, events.Included(), 0.0, S.CLOSED, None),
    ],
)
def test_each_arrow_of_the_table(
    state: DeploymentState, event: Event, now: float, next_state: DeploymentState, sign: Sign | None
) -> None:
    decision = decide(a_row(state, provider="p1", price=1), event, now)
    assert (decision.row.state, decision.sign) == (next_state, sign)


def test_a_create_is_signed_three_times_at_most_and_then_nothing_was_ever_on_chain() -> None:
    row = a_row()
    signed = 0
    while (decision := decide(row, events.NotIncluded())).sign is Sign.CREATE:
        row, signed = decision.row, signed + 1
    assert signed == rules.CREATES - 1
    assert (decision.row.state, decision.row.reason) == (S.CLOSED, rules.NOT_CREATED)


def test_a_session_that_ends_while_its_create_is_unsettled_closes_what_comes_of_it() -> None:
    wanted = decide(a_row(), events.Close("session_over")).row
    assert wanted.reason == "session_over"
    assert decide(wanted, events.NotIncluded()).row.state is S.CLOSED
    found = decide(wanted, events.Included())
    assert (found.row.state, found.sign, found.row.reason) == (S.CLOSING, Sign.CLOSE, "session_over")


def test_a_bid_that_was_gone_is_not_taken_again_and_the_time_for_bids_goes_on() -> None:
    row = a_row(S.LEASING, provider="p1", price=9, state_since=50.0)
    row = decide(row, events.Refused(Refusal.BID_GONE), 60.0).row
    assert (row.state, row.state_since, row.excluded, row.provider) == (S.BIDDING, 50.0, ("p1",), None)
    assert decide(row, events.Bids((a_bid("p1"),), limits()), 169.0).sign is None
    assert decide(row, events.Bids((a_bid("p1"),), limits()), 170.0).row.reason == rules.NO_BIDS


def test_a_lease_that_is_not_on_chain_is_signed_again_and_its_provider_is_not_blamed() -> None:
    row = a_row(S.LEASING, provider="p1", price=9)
    signed = 0
    while (decision := decide(row, events.NotIncluded())).sign is Sign.LEASE:
        row, signed = decision.row, signed + 1
        assert (row.state, row.provider, row.excluded) == (S.LEASING, "p1", ())
    assert signed == rules.LEASES - 1
    assert (decision.row.state, decision.row.reason) == (S.CLOSING, rules.NOT_LEASED)
    assert rules.NOT_LEASED not in rules.PROVIDERS_FAULT


def test_a_node_that_gets_its_manifest_again_is_in_service_from_that_commit_on() -> None:
    decision = decide(a_row(S.SERVING, provider="p1", price=9, stopped_at=5.0), events.Resend(), 6.0)
    assert (decision.row.state, decision.row.stopped_at) == (S.DELIVERING, None)


def test_a_retry_after_a_failed_manifest_sends_the_manifest_alone() -> None:
    """akash-network/console#3372, node#999: a retry made a second lease."""
    row = a_row(S.DELIVERING, provider="p1", price=9)
    for event in (events.NoLeaseYet(), events.ProviderFailed("timeout")):
        decision = decide(row, event, 30.0)
        assert decision == Decision(row)
        assert rules.step(decision.row) is Step.SEND_MANIFEST


EVENTS: st.SearchStrategy[Event] = st.sampled_from(
    [
        events.Included(),
        events.Exists(),
        events.NotIncluded(),
        events.Refused(Refusal.NO_FUNDS),
        events.Refused(Refusal.BID_GONE),
        events.Refused(Refusal.GONE),
        OTHER,
        events.Bids((), limits()),
        events.Bids((a_bid("a"), a_bid("b", 8.0), a_bid("c", 99.0)), limits()),
        events.Accepted(),
        events.NoLeaseYet(),
        events.ManifestRejected(),
        events.ProviderFailed(),
        events.Ready("http://n"),
        events.NotReady(),
        events.LeaseEnded(),
        events.ChainClosed(),
        events.Resend(),
        events.Close("session_over"),
    ]
)


@given(st.lists(st.tuples(EVENTS, st.sampled_from([0.0, 1.0, 50.0, 400.0])), max_size=40))
def test_whatever_happens_the_chosen_bid_is_acceptable_and_the_first_reason_stays(
    history: list[tuple[Event, float]],
) -> None:
    row, now, reason = a_row(), 0.0, None
    for event, waited in history:
        now += waited
        decision = decide(row, event, now)
        after = decision.row
        assert row.state is not S.CLOSED or decision == Decision(row)
        assert after.state is not S.CLOSED or decision.sign is None
        if decision.sign is Sign.LEASE:
            assert row.state is S.BIDDING, "a lease is asked for once for each choice"
            assert after.price is not None
            assert 0 < after.price <= after.ceiling
            assert after.provider not in after.excluded
        if decision.sign is Sign.CREATE:
            assert row.state is S.CREATING
        if after.state in (S.DELIVERING, S.STARTING, S.SERVING):
            assert after.provider is not None
        assert reason is None or after.reason == reason
        reason = after.reason
        assert (after.dseq, after.hash, after.manifest, after.token) == (row.dseq, row.hash, row.manifest, row.token)
        row = after


class Model(msgspec.Struct):
    """A chain that obeys its own rules: what it answers to each transaction, and what is truly there."""

    deployment: str = "none"
    lease: bool = False
    leases_made: int = 0
    creates_taken: int = 0

    def take(self, sign: Sign, lost: bool) -> Event:
        if lost:
            return events.NotIncluded()
        match sign:
            case Sign.CREATE:
                if self.deployment != "none":
                    return events.Exists()
                self.deployment, self.creates_taken = "active", self.creates_taken + 1
            case Sign.LEASE:
                if self.deployment != "active":
                    return events.Refused(Refusal.GONE)
                if self.lease:
                    return events.Exists()
                self.lease, self.leases_made = True, self.leases_made + 1
            case Sign.CLOSE:
                if self.deployment != "active":
                    return events.Refused(Refusal.GONE)
                self.deployment, self.lease = "closed", False
        return events.Included()


CHOICES = st.lists(st.integers(0, 3), min_size=20, max_size=60)


@given(CHOICES, st.integers(0, 60))
def test_a_deployment_of_any_history_ends_served_or_closed_with_its_deposit_back(
    choices: list[int], ends_after: int
) -> None:
    world, row, now = Model(), a_row(), 0.0
    pending: Sign | None = Sign.CREATE
    for number, choice in enumerate([*choices, *[0] * 200]):
        now += 7.0
        if number == ends_after:
            row = decide(row, events.Close("session_over"), now).row
            pending = Sign.CLOSE if row.state is S.CLOSING else pending
            continue
        event: Event
        match rules.step(row):
            case Step.FOLLOW:
                event = world.take(pending or Sign.CLOSE, lost=choice == 3)
            case Step.COLLECT_BIDS:
                event = events.Bids(() if choice else (a_bid("a"), a_bid("b"), a_bid("c")), limits(now))
            case Step.SEND_MANIFEST:
                event = (events.Accepted(), events.NoLeaseYet(), events.ProviderFailed(), events.ManifestRejected())[
                    choice
                ]
            case Step.AWAIT_READY:
                event = (events.Ready("http://n"), events.NotReady(), events.NotReady(), events.ProviderFailed())[
                    choice
                ]
            case None if row.state is S.SERVING:
                assert world.deployment == "active"
                assert world.lease
                event = events.Resend() if choice == 1 else events.Close("session_over")
            case None:
                break
        decision = decide(row, event, now)
        row, pending = decision.row, decision.sign
    assert row.state is S.CLOSED
    assert world.deployment in ("none", "closed"), "the deposit is still locked"
    assert world.creates_taken <= 1
    assert not world.lease
