"""How children are started, restarted and stopped: validated, frozen values."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from actors._errors import InvalidSpec

if TYPE_CHECKING:
    from actors._actor import Actor, Job

Restart = Literal["permanent", "transient", "temporary"]
Shutdown = float | Literal["infinity", "brutal_kill"]
Strategy = Literal["one_for_one", "one_for_all", "rest_for_one", "dynamic"]
AutoShutdown = Literal["never", "any_significant", "all_significant"]
OnExceed = Literal["escalate", "disable"]
WhenFull = Literal["refuse", "drop_oldest", "drop_newest"]
Kind = Literal["worker", "supervisor"]
_STEPS_AT_MOST = 10_000
_MEANT_AT_MOST = 20
"""An intensity of more restarts is taken to say that there is no limit."""


def _finite(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number above every float
        return False


def require_seconds(
    value: object, name: str, *, above_zero: bool = False, endless: bool = False, at_most: float = math.inf
) -> None:
    """Raise ValueError unless `value` is a number from 0 to `at_most`. Infinity only when `endless`, 0 unless
    `above_zero`. NaN and bools are none: every number that reaches the shared timers comes through here, because one
    of them out of order would hold up the deadlines of all."""
    fine = _finite(value) and 0 <= value <= at_most and not (above_zero and value == 0)  # type: ignore[operator]
    if not fine and not (endless and isinstance(value, float) and value == math.inf):
        least = "a number > 0" if above_zero else "a number >= 0"
        most = f"{least} and <= {at_most:g}" if at_most < math.inf else least
        raise ValueError(f"{name} is {value!r}; wanted {most}{' or infinity' if endless else ', finite'}")


def is_whole(value: object, least: int) -> bool:
    """Return whether it is an int >= `least` and no bool."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _name(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_or_none(value: object, kind: type) -> bool:
    return value is None or isinstance(value, kind)


def _require(fine: bool, field: str, problem: str) -> None:
    if not fine:
        raise InvalidSpec(field, problem)


def _require_id(value: object) -> None:
    _require(
        isinstance(value, str) and value != "" and "/" not in value, "id", f"wanted a name without '/', got {value!r}"
    )


def _require_one_of(value: object, field: str, choices: tuple[str, ...]) -> None:
    _require(value in choices, field, f"wanted one of {', '.join(choices)}, got {value!r}")


def _require_shutdown(value: object) -> None:
    named = value == "infinity" or value == "brutal_kill"
    timed = _finite(value) and value >= 0  # type: ignore[operator]  # _finite leaves numbers only
    _require(named or timed, "shutdown", f"wanted seconds >= 0, 'infinity' or 'brutal_kill', got {value!r}")


class MailboxPolicy(msgspec.Struct, frozen=True):
    """The bound of a mailbox in messages, and what `tell` does with one more: refuse it (MailboxFull to the
    teller), drop the oldest, or drop the newest. `send` and `call` always wait for room."""

    bound: int = 1024
    when_full: WhenFull = "refuse"

    def __post_init__(self) -> None:
        _require(is_whole(self.bound, 1), "bound", f"wanted >= 1, got {self.bound!r}")
        _require_one_of(self.when_full, "when_full", ("refuse", "drop_oldest", "drop_newest"))


class Intensity(msgspec.Struct, frozen=True):
    """At most `restarts` restarts within any `period_s` seconds; one more exceeds it. Defaults as in Elixir."""

    restarts: int = 3
    period_s: float = 5.0

    def __post_init__(self) -> None:
        _require(is_whole(self.restarts, 0), "restarts", f"wanted a whole number >= 0, got {self.restarts!r}")
        _require(_finite(self.period_s) and self.period_s > 0, "period_s", f"wanted seconds > 0, got {self.period_s!r}")


class Backoff(msgspec.Struct, frozen=True):
    """How long a restart waits: `min_s * factor ** attempt`, at most `max_s`, spread by +-`jitter` (a share of
    itself, 0 to 1), never above `max_s`. The attempts start over once the child ran for `reset_after_s`
    (default: `max_s`).

    >>> Backoff(1.0, 30.0, jitter=0.0).delay_s(attempt=3, roll=0.5)
    8.0
    >>> Backoff(1.0, 30.0, jitter=0.0).delay_s(attempt=5000, roll=0.5)
    30.0
    >>> Backoff(1.0, 30.0, jitter=0.2).delay_s(attempt=0, roll=0.0)
    0.8
    """

    min_s: float
    max_s: float
    factor: float = 2.0
    jitter: float = 0.2
    reset_after_s: float | None = None

    def __post_init__(self) -> None:
        _require(_finite(self.min_s) and self.min_s > 0, "min_s", f"wanted seconds > 0, got {self.min_s!r}")
        fine = _finite(self.max_s) and self.max_s >= self.min_s
        _require(fine, "max_s", f"wanted seconds >= min_s, got {self.max_s!r}")
        _require(_finite(self.factor) and self.factor >= 1, "factor", f"wanted >= 1, got {self.factor!r}")
        _require(_finite(self.jitter) and 0 <= self.jitter <= 1, "jitter", f"wanted 0 to 1, got {self.jitter!r}")
        reset = self.reset_after_s
        _require(reset is None or (_finite(reset) and reset >= 0), "reset_after_s", f"wanted seconds, got {reset!r}")

    def delay_s(self, attempt: int, roll: float) -> float:
        """Return seconds to wait before restart number `attempt` (from 0); `roll` is a uniform draw from [0, 1)."""
        if self.factor == 1:
            plain = self.min_s
        elif attempt * math.log(self.factor) >= math.log(self.max_s) - math.log(self.min_s):
            plain = self.max_s
        else:
            plain = self.min_s * self.factor**attempt
        return min(self.max_s, plain * (1 + self.jitter * (2 * roll - 1)))


class UnreachableIntensity(UserWarning):
    """A child waits so long between its restarts that it never exceeds its intensity: it is restarted for ever."""


def reachable(backoff: Backoff, intensity: Intensity) -> bool:
    """Return whether a child that fails at once each time makes `intensity.restarts + 1` restarts in a period.

    >>> reachable(Backoff(1.0, 30.0, jitter=0.0), Intensity(3, 5.0)), reachable(Backoff(1.0, 30.0), Intensity(3, 60.0))
    (False, True)
    """
    spent_s, attempt = 0.0, 0
    while attempt < intensity.restarts and spent_s <= intensity.period_s:
        wait_s = backoff.delay_s(attempt, 0.0)
        constant = wait_s == backoff.delay_s(attempt + 1, 0.0) or attempt >= _STEPS_AT_MOST
        steps = intensity.restarts - attempt if constant else 1
        spent_s += wait_s * steps
        attempt += steps
    return spent_s <= intensity.period_s


def _warn_of_unreachable(backoff: Backoff | None, intensity: Intensity, child_id: str) -> None:
    meant = intensity.restarts <= _MEANT_AT_MOST
    if backoff is not None and meant and not reachable(backoff, intensity):
        warnings.warn(
            f"{child_id!r} never exceeds {intensity.restarts} restarts in {intensity.period_s:g} s, because it waits "
            f"{backoff.min_s:g} to {backoff.max_s:g} s before each: give it an Intensity with a longer period, or one "
            f"of more than {_MEANT_AT_MOST} restarts if it is to be restarted for ever",
            UnreachableIntensity,
            stacklevel=4,
        )


class ChildSpec(msgspec.Struct, frozen=True, kw_only=False):
    """One child of a supervisor.

    `start` makes it, anew at each (re)start: an Actor, a Job, a SupervisorSpec, or None to be ignored (the child is
    listed without running). It is called on the loop and must not block.
    `restart`: permanent always, transient after an abnormal end, temporary never.
    `shutdown`: seconds it gets to end when asked, "infinity", or "brutal_kill" (never asked). Default 5 s, and
    infinity for a supervisor.
    `name`: the registered name its references resolve by. Without one only `start_child`'s reference reaches it.
    `significant`: its own end counts for the supervisor's `auto_shutdown`.
    `backoff`: wait before restarts. `intensity`: restarts are counted for this child alone.
    `on_exceed`: when its restarts exceed the intensity, the supervisor gives up ("escalate"), or this child alone
    stays down until `restart_child` ("disable"; counted for this child alone, too).
    `start_within_s`: a start of an actor or job that takes longer has failed, with StartTimeout. Default: no limit.
    """

    id: str
    start: Callable[[], Actor[Any] | Job | SupervisorSpec | None]
    restart: Restart = "permanent"
    shutdown: Shutdown | None = None
    name: str | None = None
    significant: bool = False
    backoff: Backoff | None = None
    intensity: Intensity | None = None
    on_exceed: OnExceed = "escalate"
    kind: Kind = "worker"
    start_within_s: float | None = None

    def __post_init__(self) -> None:
        if self.shutdown is None:
            msgspec.structs.force_setattr(self, "shutdown", "infinity" if self.kind == "supervisor" else 5.0)
        _check_child(self)


def _check_child(spec: ChildSpec) -> None:
    _require_id(spec.id)
    _require(callable(spec.start), "start", f"wanted a function, got {spec.start!r}")
    _require_one_of(spec.restart, "restart", ("permanent", "transient", "temporary"))
    _require_one_of(spec.kind, "kind", ("worker", "supervisor"))
    _require_shutdown(spec.shutdown)
    _require(spec.name is None or _name(spec.name), "name", f"wanted a name, got {spec.name!r}")
    _require(isinstance(spec.significant, bool), "significant", f"wanted a bool, got {spec.significant!r}")
    lasting = spec.significant and spec.restart == "permanent"
    _require(not lasting, "significant", "a permanent child never ends by itself")
    _require(_is_or_none(spec.backoff, Backoff), "backoff", f"wanted a Backoff, got {spec.backoff!r}")
    _require(_is_or_none(spec.intensity, Intensity), "intensity", f"wanted an Intensity, got {spec.intensity!r}")
    _require_one_of(spec.on_exceed, "on_exceed", ("escalate", "disable"))
    within = spec.start_within_s
    timed = within is None or (_finite(within) and within > 0)
    _require(timed, "start_within_s", f"wanted seconds > 0, got {within!r}")
    _require(within is None or spec.kind == "worker", "start_within_s", "the children of a supervisor have it")
    if spec.intensity is not None:
        _warn_of_unreachable(spec.backoff, spec.intensity, spec.id)


class SupervisorSpec(msgspec.Struct, frozen=True):
    """A supervisor and the children it starts with, in this order; they are stopped in the reverse order.

    `strategy`: who is restarted when one child must be: itself (one_for_one), all (one_for_all), itself and those
    after it (rest_for_one). A `dynamic` supervisor starts empty, takes children by `start_child` (at most
    `max_children`), starts and stops them at the same time, and forgets those that end; one that is disabled stays,
    and counts, until it is restarted, stopped or deleted.
    `intensity`: how many restarts before it gives up, which its own supervisor then sees as an end by `shutdown`.
    `auto_shutdown`: it ends when any, or the last, of its significant children ended by itself.
    The other fields are those of ChildSpec, for this supervisor as a child.
    """

    id: str
    children: Sequence[ChildSpec | SupervisorSpec] = ()
    strategy: Strategy = "one_for_one"
    intensity: Intensity = Intensity()
    restart: Restart = "permanent"
    shutdown: Shutdown = "infinity"
    significant: bool = False
    auto_shutdown: AutoShutdown = "never"
    max_children: int | None = None
    name: str | None = None
    backoff: Backoff | None = None
    on_exceed: OnExceed = "escalate"

    def __post_init__(self) -> None:
        _require_id(self.id)
        _require_one_of(self.strategy, "strategy", ("one_for_one", "one_for_all", "rest_for_one", "dynamic"))
        fine = isinstance(self.intensity, Intensity)
        _require(fine, "intensity", f"wanted an Intensity, got {self.intensity!r}")
        _require_one_of(self.auto_shutdown, "auto_shutdown", ("never", "any_significant", "all_significant"))
        _require_shutdown(self.shutdown)
        dynamic = self.strategy == "dynamic"
        most = self.max_children
        _require(most is None or is_whole(most, 0), "max_children", f"wanted >= 0, got {most!r}")
        _require(most is None or dynamic, "max_children", "only a dynamic supervisor has it")
        _require(not (dynamic and self.children), "children", "a dynamic supervisor starts empty")
        _require(not dynamic or self.auto_shutdown == "never", "auto_shutdown", "not with dynamic children")
        ids: set[str] = set()
        for child in self.children:
            fine = isinstance(child, ChildSpec | SupervisorSpec)
            _require(fine, "children", f"wanted ChildSpec or SupervisorSpec, got {child!r}")
            _require(child.id not in ids, "children", f"duplicate id {child.id!r}")
            ids.add(child.id)
            require_fits(child_of(child), self)
            counted_here = isinstance(child, ChildSpec) and child.intensity is None
            if counted_here and (len(self.children) == 1 or child.on_exceed == "disable"):
                _warn_of_unreachable(child.backoff, self.intensity, child.id)
        child_of(self)


def child_of(spec: ChildSpec | SupervisorSpec) -> ChildSpec:
    """`spec` as its supervisor sees it."""
    if isinstance(spec, ChildSpec):
        return spec
    return ChildSpec(
        spec.id,
        lambda: spec,
        restart=spec.restart,
        shutdown=spec.shutdown,
        name=spec.name,
        significant=spec.significant,
        backoff=spec.backoff,
        on_exceed=spec.on_exceed,
        kind="supervisor",
    )


def require_fits(child: ChildSpec, supervisor: SupervisorSpec) -> None:
    """Raise InvalidSpec when `child` may not live under `supervisor`."""
    if child.significant and supervisor.auto_shutdown == "never":
        raise InvalidSpec("significant", f"{supervisor.id!r} never shuts down by itself (auto_shutdown is 'never')")
