"""Subnets, their neurons and blocks, and the status of syncing them."""

import msgspec

MECHANISM_MAX_U16 = 65_535
"""Incentive, consensus and dividends are fractions of this."""

RAO_PER_TAO = 1_000_000_000


class Axon(msgspec.Struct, frozen=True):
    """The address that a neuron announces. `ip` is text (IPv4 or IPv6, without brackets)."""

    ip: str
    port: int
    version: int
    protocol: int
    block: int
    """Block of the announcement."""


class Neuron(msgspec.Struct, frozen=True, kw_only=True):
    """One uid of a subnet. Stakes are as the chain weights them (parents, children, TAO weight), in rao."""

    uid: int
    hotkey: bytes
    coldkey: bytes
    stake_rao: int
    alpha_stake_rao: int
    tao_stake_rao: int
    validator_permit: bool
    active: bool
    incentive_u16: int
    consensus_u16: int
    dividends_u16: int
    emission_rao: int
    """Alpha per tempo."""
    last_update_block: int
    registered_at_block: int
    axon: Axon | None
    """None when it never announced one, or announced something that is not an address."""
    trust_u16: int | None
    rank_u16: int | None
    pruning_score_u16: int | None
    """None for these three where the runtime no longer keeps them (425 and later)."""


class SubnetParameters(msgspec.Struct, frozen=True, kw_only=True):
    """The subnet's hyperparameters for registration, weights and serving."""

    tempo: int
    max_uids: int
    max_validators: int
    burn_rao: int
    registration_allowed: bool
    immunity_period_blocks: int
    activity_cutoff_blocks: int
    serving_rate_limit_blocks: int
    weights_rate_limit_blocks: int
    weights_version: int
    min_allowed_weights: int
    max_weights_limit: int
    commit_reveal_weights_enabled: bool
    commit_reveal_period_tempos: int


class Metagraph(msgspec.Struct, frozen=True, kw_only=True):
    """A subnet at one finalized block. `neurons[uid].uid == uid`."""

    netuid: int
    block: int
    block_hash: bytes
    spec_version: int
    name: str
    owner_hotkey: bytes
    owner_coldkey: bytes
    parameters: SubnetParameters
    neurons: tuple[Neuron, ...]
    uid_by_hotkey: dict[bytes, int]
    read_at_s: float
    """Monotonic clock of this process when the chain was asked."""
    endpoint: str
    witness: str | None
    """Second endpoint that gave the same bytes; None when there was none to ask."""
    last_epoch_block: int = 0
    """Block at which the chain last ran the subnet's epoch; 0 where it has not."""

    def neuron(self, hotkey: bytes) -> Neuron | None:
        """Return the neuron of this 32-byte hotkey, None when it is not registered."""
        uid = self.uid_by_hotkey.get(hotkey)
        return None if uid is None else self.neurons[uid]

    def age_s(self, now_s: float) -> float:
        """Return the seconds since this was read; `now_s` is monotonic."""
        return max(0.0, now_s - self.read_at_s)


class FinalizedBlock(msgspec.Struct, frozen=True):
    """A finalized block."""

    number: int
    hash: bytes


class BlockReport(msgspec.Struct, frozen=True):
    """A finalized block as one endpoint reports it."""

    endpoint: str
    block: int
    hash: str
    """`0x` and hex."""
    header: object = None
    """As received; None when the endpoint sent none, or one that is too large to be a header."""


class Fork(msgspec.Struct, frozen=True):
    """Evidence of a fork: two endpoints have different finalized blocks of one number."""

    seen_at_s: float
    """Unix time."""
    one: BlockReport
    other: BlockReport


class Registered(msgspec.Struct, frozen=True, tag=True):
    """A uid that did not exist before."""

    netuid: int
    block: int
    uid: int
    hotkey: bytes


class Replaced(msgspec.Struct, frozen=True, tag=True):
    """A uid that another hotkey holds now. What was learned about the old hotkey does not apply to the new one."""

    netuid: int
    block: int
    uid: int
    old_hotkey: bytes
    hotkey: bytes


class Removed(msgspec.Struct, frozen=True, tag=True):
    """A uid that no longer exists: the subnet was trimmed or restarted."""

    netuid: int
    block: int
    uid: int
    hotkey: bytes


class PermitLost(msgspec.Struct, frozen=True, tag=True):
    """A hotkey that may no longer set weights."""

    netuid: int
    block: int
    uid: int
    hotkey: bytes


class AxonMoved(msgspec.Struct, frozen=True, tag=True):
    """A hotkey announced another address; `axon` is None when it withdrew its announcement."""

    netuid: int
    block: int
    uid: int
    hotkey: bytes
    axon: Axon | None


SubnetChange = Registered | Replaced | Removed | PermitLost | AxonMoved


class EndpointHealth(msgspec.Struct, frozen=True):
    """The recent behavior of an endpoint. Times are monotonic seconds."""

    failures: int = 0
    """Consecutive failures."""
    not_before_s: float = 0.0
    """Earliest time to ask for its finalized head again."""
    last_error: str = ""
    silent_until_s: float = 0.0
    """Earliest time to ask it anything: it was busy, unreachable, or gave a malformed answer."""


class HeadWatch(msgspec.Struct, frozen=True):
    """The newest finalized block that was accepted, and when (monotonic seconds)."""

    head: FinalizedBlock
    advanced_at_s: float


class SubnetStatus(msgspec.Struct, frozen=True):
    """One subnet as /status shows it."""

    netuid: int
    block: int | None
    age_s: float | None
    neurons: int
    error: str
    """Why the last sync failed; empty when it succeeded."""


class ChainStatus(msgspec.Struct, frozen=True):
    """The status of the syncer, for /status and /metrics."""

    network: str
    endpoint: str
    spec_version: int | None
    head: int | None
    best: int | None
    """The best block, which is not final yet."""
    head_age_s: float | None
    """Since the finalized head last advanced."""
    stalled: bool
    syncs: int
    failures: int
    error: str
    endpoints: dict[str, EndpointHealth]
    subnets: tuple[SubnetStatus, ...]
    changes: tuple[str, ...] = ()
    """The newest 20 changes in words, oldest first."""
