"""Answers of the chain's REST interface, as far as they are read. Numbers of 64 bits are text, amounts signed decimals.

Nothing here is trusted to be complete: absent fields and null lists stand for empty ones.
"""

import base64
import binascii
from typing import Annotated, Final, TypeAlias

import msgspec

from engram.provisioning.akash.cosmos_model import Coin, Pagination, Small, Unsigned, Whole, amount_of
from engram.provisioning.akash.model import PICO, Bid, Deployment, pico_of

_MOST: Final = (1 << 63) - 1


class ChainId(msgspec.Struct, frozen=True):
    """Ids of deployments, orders, bids and leases; the fields that each has."""

    owner: str = ""
    dseq: Unsigned = "0"
    gseq: Small = 0
    oseq: Small = 0
    provider: str = ""
    bseq: Small = 0


class ChainDeployment(msgspec.Struct, frozen=True):
    """A deployment on chain."""

    id: ChainId = ChainId()
    state: str = ""
    hash: str = ""
    """Base64."""
    created_at: Whole = "0"


class EscrowState(msgspec.Struct, frozen=True):
    """An escrow as it was at `settled_at`; `funds` is negative where it is overdrawn."""

    state: str = ""
    transferred: tuple[Coin, ...] | None = None
    settled_at: Whole = "0"
    funds: tuple[Coin, ...] | None = None


class Escrow(msgspec.Struct, frozen=True):
    """The escrow account of a deployment."""

    state: EscrowState = EscrowState()


class DeploymentInfo(msgspec.Struct, frozen=True):
    """GET …/deployments/info, and the rows of …/deployments/list."""

    deployment: ChainDeployment = ChainDeployment()
    escrow_account: Escrow = Escrow()

    @property
    def dseq(self) -> int:
        return int(self.deployment.id.dseq)

    @property
    def hash(self) -> bytes:
        """What the manifest hashes to; empty when it cannot be read."""
        try:
            return base64.b64decode(self.deployment.hash, validate=True)
        except binascii.Error:
            return b""

    def is_of(self, owner: str, dseq: int) -> bool:
        """Return whether this is that deployment, in a state that is known."""
        shown = self.deployment
        return shown.id.owner == owner and self.dseq == dseq and shown.state in ("active", "closed")

    @property
    def is_active(self) -> bool:
        return self.deployment.state == "active"

    @property
    def spent_uact(self) -> int:
        """What was paid to providers up to the last settlement, rounded up; at most what the ledger can hold."""
        return min(-(-amount_of(self.escrow_account.state.transferred, "uact") // PICO), _MOST)

    @property
    def funds(self) -> int:
        """What was left at the last settlement, picoACT; negative when overdrawn."""
        return amount_of(self.escrow_account.state.funds, "uact")

    @property
    def settled_at(self) -> int:
        """Height of the last settlement."""
        return int(self.escrow_account.state.settled_at)


class DeploymentsAnswer(msgspec.Struct, frozen=True):
    """GET …/deployments/list."""

    deployments: tuple[DeploymentInfo, ...] | None = None
    pagination: Pagination | None = None


class ChainBid(msgspec.Struct, frozen=True):
    """A bid on chain."""

    id: ChainId = ChainId()
    state: str = ""
    price: Coin = Coin()
    reclamation_window: str | None = None


class BidAnswer(msgspec.Struct, frozen=True):
    """A row of …/bids/list."""

    bid: ChainBid = ChainBid()

    def known(self) -> Bid:
        """Return the bid as the rules see it. Raises ValueError."""
        bid = self.bid
        window = (bid.reclamation_window or "0s").removesuffix("s")
        return Bid(
            provider=bid.id.provider,
            gseq=bid.id.gseq,
            oseq=bid.id.oseq,
            bseq=bid.id.bseq,
            price=pico_of(bid.price.amount),
            denom=bid.price.denom,
            reclaim_s=float(window),
        )


class BidsAnswer(msgspec.Struct, frozen=True):
    """GET …/bids/list."""

    bids: tuple[BidAnswer, ...] | None = None
    pagination: Pagination | None = None


class ChainReclamation(msgspec.Struct, frozen=True):
    """A provider's notice."""

    deadline: Whole | Annotated[int, msgspec.Meta(ge=0, lt=1 << 60)] = 0
    """Unix seconds."""


class ChainLease(msgspec.Struct, frozen=True):
    """A lease on chain. `reason` counts only once it is closed: an active one carries the enum's zero."""

    id: ChainId = ChainId()
    state: str = ""
    price: Coin = Coin()
    closed_on: Whole = "0"
    reason: str = ""
    reclamation: ChainReclamation | None = None


class Lease(msgspec.Struct, frozen=True):
    """A row of …/leases/list."""

    lease: ChainLease = ChainLease()

    @property
    def dseq(self) -> int:
        return int(self.lease.id.dseq)

    def is_of(self, row: Deployment) -> bool:
        """Return whether this is the lease of the bid that was taken; an order that opens again has another one."""
        shown = self.lease.id
        return (self.dseq, shown.gseq, shown.oseq, shown.provider) == (row.dseq, row.gseq, row.oseq, row.provider)

    @property
    def price(self) -> int:
        """picoACT a block; 0 where it is in another coin."""
        return amount_of((self.lease.price,), "uact")

    @property
    def is_serving(self) -> bool:
        """Active, or with notice given: it still serves and is still paid."""
        return self.lease.state in ("active", "reclaiming")

    @property
    def ends_at(self) -> float | None:
        """When the provider takes its machine back, unix seconds; None without notice."""
        notice = self.lease.reclamation
        return None if notice is None or self.lease.state != "reclaiming" else float(notice.deadline) or None


class LeasesAnswer(msgspec.Struct, frozen=True):
    """GET …/leases/list."""

    leases: tuple[Lease, ...] | None = None
    pagination: Pagination | None = None


class ChainProvider(msgspec.Struct, frozen=True):
    """A provider as it registered."""

    owner: str = ""
    host_uri: str = ""


class ProviderAnswer(msgspec.Struct, frozen=True):
    """GET …/providers/{address}."""

    provider: ChainProvider = ChainProvider()


class ChainCertificate(msgspec.Struct, frozen=True):
    """A certificate: base64 of PEM."""

    state: str = ""
    cert: str = ""


class CertificateRow(msgspec.Struct, frozen=True):
    """A row of …/certificates/list."""

    certificate: ChainCertificate = ChainCertificate()
    serial: str = ""


class CertificatesAnswer(msgspec.Struct, frozen=True):
    """GET …/certificates/list."""

    certificates: tuple[CertificateRow, ...] | None = None


class DeploymentParams(msgspec.Struct, frozen=True):
    """What a deployment must deposit."""

    min_deposits: tuple[Coin, ...] | None = None


class DeploymentParamsAnswer(msgspec.Struct, frozen=True):
    """GET …/deployment/…/params."""

    params: DeploymentParams = DeploymentParams()


Seconds: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,12}(\.[0-9]{1,9})?s$")]
"""A duration, as in `3600s`."""


class MarketParams(msgspec.Struct, frozen=True):
    """What notice of a provider a deployment may ask for."""

    min_reclamation_window: Seconds = "3600s"
    max_reclamation_window: Seconds = "2592000s"


class MarketParamsAnswer(msgspec.Struct, frozen=True):
    """GET …/market/…/params."""

    params: MarketParams = MarketParams()


class MintParams(msgspec.Struct, frozen=True):
    """How little may be minted."""

    min_mint: tuple[Coin, ...] | None = None


class MintParamsAnswer(msgspec.Struct, frozen=True):
    """GET …/bme/…/params."""

    params: MintParams = MintParams()


class RecordId(msgspec.Struct, frozen=True):
    """The chain's id of a mint."""

    denom: str = ""
    to_denom: str = ""
    source: str = ""
    height: Whole = "0"
    sequence: Whole = "0"


class MintRecord(msgspec.Struct, frozen=True):
    """A record of minted ACT."""

    id: RecordId = RecordId()
    status: str = ""


class MintLedgerAnswer(msgspec.Struct, frozen=True):
    """GET …/bme/…/ledger."""

    records: tuple[MintRecord, ...] | None = None
    pagination: Pagination | None = None
