"""The saga of one session: what to do next, given what is known. No I/O, no clock, no randomness.

Facts come from the ledger (state of the session, node row that is not gone, launches begun); what a step brought
comes as an event. Each step is one effect and each effect brings exactly one event; no effect means that there is
nothing left to do. Anything surprising leads to REREAD, which starts over from the facts.

| session         | node       | next step                                                             |
|-----------------|------------|-----------------------------------------------------------------------|
| payment_pending | any        | none                                                                  |
| provisioning    | none       | PLAN while launches are left, else GIVE_UP                            |
| provisioning    | there      | LAUNCH (idempotent by token: finds what a killed gateway had started) |
| active          | there      | INSPECT: somebody saw its node to be down; if so DEGRADE              |
| active          | none       | DEGRADE                                                               |
| degraded        | none       | PLAN: a new node is better than none                                  |
| degraded        | there      | LAUNCH again, on what it had stored                                   |
| stopping        | there      | DESTROY                                                               |
| stopping        | none       | FINISH                                                                |
| over            | there      | DESTROY                                                               |
| over            | none       | none                                                                  |

A node row that is there may have been started or not: only a confirmed DESTROY removes it, or WITHDRAW where the
worker that planned it knows that nothing was ever sent.
"""

from enum import StrEnum
from typing import assert_never

import msgspec

from engram.sessions import TERMINAL, SessionState

UNANSWERED_LIMIT = 10
"""A launch, or its plan, that brought nothing this often in a row counts as refused while the session never ran."""
_WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)


class Effect(StrEnum):
    """What the worker is to do."""

    PLAN = "plan"
    """Commit the launch: token, port, key, one attempt more."""
    LAUNCH = "launch"
    AWAIT_HEALTH = "await_health"
    SERVE = "serve"
    """Commit that the node serves: the paid clock starts, or goes on."""
    INSPECT = "inspect"
    """Ask the backend whether the node still runs."""
    DEGRADE = "degrade"
    WITHDRAW = "withdraw"
    """Commit that a launch which was never sent is not made; another backend may have room."""
    STOP_NODE = "stop_node"
    DESTROY = "destroy"
    """Destroy the node and commit that it is gone."""
    GIVE_UP = "give_up"
    """Commit the failure; a refund is due."""
    FINISH = "finish"
    """Commit the end of a session that was stopping."""
    WAIT = "wait"
    REREAD = "reread"


class Outcome(StrEnum):
    """What a step brought, besides facts."""

    DONE = "done"
    REFUSED = "refused"
    """Nothing was started; another attempt may do."""
    REJECTED = "rejected"
    """Nothing was started and never will be."""
    UNREACHED = "unreached"
    """No launch under this token was ever sent, and another backend answers."""
    UNANSWERED = "unanswered"
    """Not sent, or the outcome is not known."""
    UNHEALTHY = "unhealthy"
    """The node ended, or did not become healthy in time."""
    LOST = "lost"
    """The session is in another state by now."""


class Facts(msgspec.Struct, frozen=True):
    """What the ledger says."""

    session: SessionState
    node: bool
    """There is a node row that is not gone."""
    attempts: int
    """Launches begun."""


class Saga(msgspec.Struct, frozen=True):
    """What the worker knows."""

    facts: Facts
    limit: int
    """Launches at most for a session that never ran."""
    doing: Effect = Effect.REREAD
    failures: int = 0
    """Steps in a row that brought nothing."""
    hopeless: bool = False
    """A launch was rejected for good."""


def begin(limit: int) -> Saga:
    """Return a saga that knows nothing yet; its first step is to read the facts."""
    return Saga(Facts(SessionState.PAYMENT_PENDING, node=False, attempts=0), limit)


def wait_s(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row."""
    return _WAITS_S[min(failures, len(_WAITS_S)) - 1] if failures > 0 else 0.0


def decide(saga: Saga, event: Facts | Outcome) -> tuple[Saga, Effect | None]:
    """Return the saga after `event` and the step to take now; None when there is nothing left to do."""
    if isinstance(event, Facts):
        saga = msgspec.structs.replace(saga, facts=event)
        step = _from_facts(saga)
    else:
        saga, step = _after(saga, event)
    return (saga if step is None else msgspec.structs.replace(saga, doing=step)), step


def _from_facts(saga: Saga) -> Effect | None:
    session, node = saga.facts.session, saga.facts.node
    if session in TERMINAL:
        return Effect.DESTROY if node else None
    match session:
        case SessionState.PAYMENT_PENDING:
            return None
        case SessionState.STOPPING:
            return Effect.DESTROY if node else Effect.FINISH
        case SessionState.PROVISIONING:
            if node:
                return Effect.LAUNCH
            may_try = saga.facts.attempts < saga.limit and not saga.hopeless
            return Effect.PLAN if may_try else Effect.GIVE_UP
        case SessionState.ACTIVE:
            return Effect.INSPECT if node else Effect.DEGRADE
        case _:  # degraded
            return Effect.LAUNCH if node else Effect.PLAN


def _after(saga: Saga, outcome: Outcome) -> tuple[Saga, Effect | None]:
    first_launch = saga.facts.session is SessionState.PROVISIONING
    failed = msgspec.structs.replace(saga, failures=saga.failures + 1)
    match outcome:
        case Outcome.DONE:
            return _after_done(saga)
        case Outcome.LOST:
            return saga, Effect.REREAD
        case Outcome.UNREACHED if saga.doing is Effect.LAUNCH:
            return failed, Effect.WITHDRAW
        case Outcome.UNHEALTHY if saga.doing is Effect.INSPECT:
            return saga, Effect.DEGRADE
        case Outcome.UNHEALTHY:
            return failed, Effect.DESTROY if first_launch else Effect.STOP_NODE
        case Outcome.REJECTED if first_launch:
            return msgspec.structs.replace(failed, hopeless=True), _undo(saga)
        case Outcome.REFUSED if first_launch and saga.doing is Effect.LAUNCH:
            return failed, Effect.DESTROY
        case Outcome.UNANSWERED if first_launch and saga.doing is Effect.LAUNCH and failed.failures >= UNANSWERED_LIMIT:
            return msgspec.structs.replace(failed, failures=0), Effect.DESTROY
        case Outcome.REFUSED if first_launch and saga.doing is Effect.PLAN and failed.failures >= UNANSWERED_LIMIT:
            return msgspec.structs.replace(failed, hopeless=True), Effect.REREAD
        case Outcome.REFUSED | Outcome.REJECTED | Outcome.UNREACHED | Outcome.UNANSWERED:
            return failed, Effect.WAIT
        case _:
            assert_never(outcome)


def _undo(saga: Saga) -> Effect:
    """After a rejection: a planned launch has a row to be removed, a plan that was rejected has none."""
    return Effect.DESTROY if saga.doing is Effect.LAUNCH else Effect.REREAD


def _after_done(saga: Saga) -> tuple[Saga, Effect | None]:
    match saga.doing:
        case Effect.PLAN:
            return saga, Effect.LAUNCH
        case Effect.LAUNCH:
            return saga, Effect.AWAIT_HEALTH
        case Effect.AWAIT_HEALTH:
            return saga, Effect.SERVE
        case Effect.STOP_NODE:
            return saga, Effect.WAIT
        case Effect.DESTROY if saga.facts.session is SessionState.PROVISIONING and saga.failures:
            return saga, Effect.WAIT
        case Effect.DEGRADE | Effect.DESTROY | Effect.WAIT | Effect.WITHDRAW | Effect.REREAD:
            return saga, Effect.REREAD
        case Effect.INSPECT | Effect.SERVE | Effect.GIVE_UP | Effect.FINISH:
            return saga, None
        case _:
            assert_never(saga.doing)
