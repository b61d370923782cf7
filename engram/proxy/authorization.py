"""Who may call: pure rules over the lists, the metagraph in memory and its age.

denied list            -> denied           403
allowed list           -> allow_list       passes, whatever the chain says
no chain configured    -> no_authority     403
metagraph absent, old  -> chain_stale      503
not registered         -> not_registered   403
no validator permit    -> no_permit        403
stake <= threshold     -> stake_too_low    403
else                   -> permit           passes
"""

from typing import Final, Protocol, TypeAlias

import msgspec

from engram.hotkeys import PublicKey
from engram.proxy.settings.model import AuthSettings, StakeUnit

RAO: Final = 1_000_000_000
_UNITS: Final[dict[StakeUnit, str]] = {"alpha": "alpha", "tao": "TAO", "weighted": "TAO (alpha and TAO, weighted)"}


class Caller(msgspec.Struct, frozen=True):
    """A hotkey as a metagraph has it; stakes in rao."""

    validator_permit: bool
    alpha_rao: int
    tao_rao: int
    weighted_rao: int


class ChainView(Protocol):
    """The subnet as last read."""

    def age_s(self) -> float | None:
        """Return the seconds since it was read; None when it never was."""
        ...

    def caller(self, hotkey: PublicKey) -> Caller | None:
        """Return what it has of a hotkey; None when that is not registered."""
        ...


class Passes(msgspec.Struct, frozen=True):
    """The caller may call."""

    reason: str
    """`allow_list` or `permit`."""


class Refuses(msgspec.Struct, frozen=True):
    """The caller may not call."""

    status: int
    reason: str
    message: str
    extra: dict[str, object] = {}


Decision: TypeAlias = Passes | Refuses


class Policy(msgspec.Struct, frozen=True):
    """The lists and thresholds, with keys as bytes."""

    allowed: frozenset[PublicKey]
    denied: frozenset[PublicKey]
    min_stake: float
    unit: StakeUnit
    source: str
    """Where the threshold was written."""
    max_age_s: float
    has_chain: bool
    min_stake_key: str = "auth.min_stake"
    """The setting that gave the threshold."""

    @property
    def public_source(self) -> str:
        """Where the threshold was written, without paths of this machine: for those whom it refuses."""
        if self.source.startswith(("environment", "env file")):
            return "the miner's environment"
        if self.min_stake_key == "auth.min_stake_url":
            return self.source
        return "the default" if self.source == "the default" else "the miner's settings file"

    def threshold(self) -> str:
        """Return the threshold in words."""
        return f"more than {self.min_stake:g} {_UNITS[self.unit]} ({self.min_stake_key}, from {self.public_source})"


def policy_of(auth: AuthSettings, source: str, decode: "Decode") -> Policy:
    """Return the policy that the settings give."""
    return Policy(
        allowed=frozenset(decode(text) for text in auth.allowed_senders),
        denied=frozenset(decode(text) for text in auth.denied_senders),
        min_stake=auth.min_stake,
        unit=auth.stake_unit,
        source=source,
        max_age_s=auth.cache_duration,
        has_chain=bool(auth.chain_endpoint),
    )


class Decode(Protocol):
    """Parses an SS58 address."""

    def __call__(self, text: str, /) -> PublicKey: ...


def decide(policy: Policy, chain: ChainView, hotkey: PublicKey) -> Decision:
    """Return whether this hotkey may call."""
    if hotkey in policy.denied:
        return Refuses(403, "denied", "Sender not allowed: this hotkey is on the miner's deny list")
    if hotkey in policy.allowed:
        return Passes("allow_list")
    if not policy.has_chain:
        return Refuses(403, "no_authority", "Sender not allowed: this miner takes requests of its allow list only")
    age_s = chain.age_s()
    if age_s is None or age_s > policy.max_age_s:
        known = "has not been read yet" if age_s is None else f"is {age_s:.0f} s old"
        return Refuses(
            503,
            "chain_stale",
            f"the miner's metagraph {known} (at most {policy.max_age_s:g} s): try again in a moment",
            {"metagraph_age_s": None if age_s is None else round(age_s)},
        )
    required = {"min_stake": policy.min_stake, "stake_unit": policy.unit, "min_stake_source": policy.public_source}
    also = f"that and a stake of {policy.threshold()} are required"
    caller = chain.caller(hotkey)
    if caller is None:
        text = f"Sender not allowed: this hotkey is not registered on the subnet, and has no validator permit; {also}"
        return Refuses(403, "not_registered", text, dict(required))
    stake = stake_of(caller, policy.unit)
    if not caller.validator_permit:
        text = f"Sender not allowed: this hotkey has no validator permit on the subnet; {also}, yours is {stake:g}"
        return Refuses(403, "no_permit", text, {"stake": stake, **required})
    if stake <= policy.min_stake:
        text = f"Sender not allowed: a stake of {policy.threshold()} is required, yours is {stake:g}"
        return Refuses(403, "stake_too_low", text, {"stake": stake, **required})
    return Passes("permit")


def stake_of(caller: Caller, unit: StakeUnit) -> float:
    """Return the stake that counts, in whole units."""
    rao = {"alpha": caller.alpha_rao, "tao": caller.tao_rao, "weighted": caller.weighted_rao}[unit]
    return rao / RAO
