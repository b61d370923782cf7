"""What the parts of a running proxy share."""

from collections.abc import Callable
from typing import final

import msgspec

from engram.clock import Clock, Ids
from engram.proxy.authorization import ChainView, Passes, Policy, Refuses, decide
from engram.proxy.capacity import Capacity
from engram.proxy.endings import Endings
from engram.proxy.exchange.admission import Admission
from engram.proxy.exchange.spool import Spool
from engram.proxy.exchange.watching import Watches
from engram.proxy.jobs.worker import Jobs
from engram.proxy.plan import Plan
from engram.telemetry.metrics import Metrics


@final
class NotAuthorized(Exception):
    """The caller that a request claims may not call."""

    def __init__(self, refused: Refuses) -> None:
        super().__init__(refused.message)
        self.refused = refused


class Threshold(msgspec.Struct, frozen=True):
    """A stake threshold that was read from a URL."""

    url: str
    shown_url: str
    """The URL without what may be secret in it."""
    min_stake: float
    read_at: float
    """Unix time: it outlives the process."""


@final
class State:
    """The plan in force, and the counters that outlive it."""

    def __init__(
        self,
        *,
        chain: ChainView,
        admission: Admission,
        spool: Spool,
        jobs: Jobs,
        capacity: Capacity,
        clock: Clock,
        ids: Ids,
        metrics: Metrics,
    ) -> None:
        self.chain = chain
        self.admission = admission
        self.spool = spool
        self.jobs = jobs
        self.capacity = capacity
        self.clock = clock
        self.ids = ids
        self.metrics = metrics
        self.endings = Endings()
        self.watches = Watches()
        self.settings_error = ""
        """Why the newest settings are not in force; empty when they are."""
        self.needs_restart: tuple[str, ...] = ()
        """Settings that differ from those in force and are only read at a start."""
        self.threshold: Threshold | None = None
        """The newest good reading of `auth.min_stake_url`."""
        self.threshold_error = ""
        """Why the newest reading failed; empty when it did not."""
        self.started_s = clock.monotonic()
        self._plan: Plan | None = None
        self._follower: Callable[[Plan], None] | None = None
        self._read_policy: tuple[Policy, Threshold, Policy] | None = None

    @property
    def plan(self) -> Plan:
        """The plan in force. Raises LookupError before `use`."""
        if self._plan is None:
            raise LookupError("the proxy has no plan yet")
        return self._plan

    @property
    def policy(self) -> Policy:
        """Who may call, by the plan in force and the threshold that was read. Raises LookupError before `use`."""
        plan, read = self.plan, self.threshold
        if read is None or read.url != plan.settings.auth.min_stake_url:
            return plan.policy
        known = self._read_policy
        if known is None or known[0] is not plan.policy or known[1] is not read:
            policy = msgspec.structs.replace(
                plan.policy, min_stake=read.min_stake, min_stake_key="auth.min_stake_url", source=read.shown_url
            )
            known = self._read_policy = (plan.policy, read, policy)
        return known[2]

    @property
    def threshold_age_s(self) -> float | None:
        """Seconds since the threshold in force was read; None where it stands in the settings."""
        if self.threshold is None or self.policy is self.plan.policy:
            return None
        return max(0.0, self.clock.now() - self.threshold.read_at)

    def use(self, plan: Plan) -> None:
        """Put a plan in force: requests that began keep theirs, all counters go on."""
        settings = plan.settings
        self._plan = plan
        self.admission.change(settings.limits)
        self.spool.change(settings.bodies)
        self.jobs.change(settings.jobs)
        self.capacity.change(settings.capacity)
        if self._follower is not None:
            self._follower(plan)

    def follow(self, follower: Callable[[Plan], None]) -> None:
        """Call the listener's `follower`, in place of the one before, with the plan in force and each one after it."""
        self._follower = follower
        follower(self.plan)

    def close(self) -> None:
        """Close the idle connections to backends."""
        if self._plan is not None:
            for group in self._plan.groups.values():
                group.retire()

    def admit(self, hotkey: bytes) -> None:
        """Decide whether a claimed caller may call, and count that. Raises NotAuthorized."""
        match decide(self.policy, self.chain, hotkey):
            case Passes():
                pass
            case Refuses() as refused:
                raise NotAuthorized(refused)

    def now_ms(self) -> int:
        """Return unix milliseconds."""
        return int(self.clock.now() * 1000)

    def now_ns(self) -> int:
        """Return unix nanoseconds."""
        return int(self.clock.now() * 1_000_000_000)
