"""The state of the chain: tables of immutable rows, with a journal that takes back what a refused transaction did."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Generic, TypeVar

import msgspec

from tests.doubles.akash.messages import GroupSpec

K = TypeVar("K")
V = TypeVar("V")

UAKT: Final = "uakt"
UACT: Final = "uact"
ONE: Final = 10**18
"""Decimals of the chain have 18 places: amounts called `dec` are integers of this unit."""
_ABSENT: Final = object()


class Params(msgspec.Struct, frozen=True):
    """What governance sets."""

    chain_id: str = "akashnet-2"
    min_deposit: int = 500_000
    bid_min_deposit: int = 500_000
    max_bids: int = 20
    min_reclamation_s: int = 3_600
    max_reclamation_s: int = 2_592_000
    min_gas_price: float = 0.0025
    """uakt for a unit of gas."""
    max_unordered_ttl_s: int = 600
    min_mint: int = 10_000_000
    min_epoch_blocks: int = 10
    mint_spread_bps: int = 25
    mint_tries: int = 3
    akt_usd: float = 1.25


class AccountRow(msgspec.Struct, frozen=True):
    address: str
    number: int
    sequence: int = 0
    public_key: bytes = b""


class DeploymentRow(msgspec.Struct, frozen=True):
    owner: str
    dseq: int
    hash: bytes
    created_at: int
    state: str = "active"
    reclamation_s: int | None = None


class GroupRow(msgspec.Struct, frozen=True):
    owner: str
    dseq: int
    gseq: int
    spec: GroupSpec
    created_at: int
    state: str = "open"


class OrderRow(msgspec.Struct, frozen=True):
    owner: str
    dseq: int
    gseq: int
    oseq: int
    spec: GroupSpec
    created_at: int
    state: str = "open"
    reclamation_s: int | None = None


class BidRow(msgspec.Struct, frozen=True):
    owner: str
    dseq: int
    gseq: int
    oseq: int
    provider: str
    price: int
    """uact for a block (dec)."""
    created_at: int
    state: str = "open"
    reclamation_s: int | None = None

    @property
    def key(self) -> tuple[str, int, int, int, str]:
        return self.owner, self.dseq, self.gseq, self.oseq, self.provider

    @property
    def xid(self) -> str:
        return f"{self.owner}/{self.dseq}/{self.gseq}/{self.oseq}/{self.provider}"


class LeaseRow(msgspec.Struct, frozen=True):
    owner: str
    dseq: int
    gseq: int
    oseq: int
    provider: str
    price: int
    created_at: int
    created_s: float
    state: str = "active"
    closed_on: int = 0
    reason: str = "lease_closed_invalid"
    """An active lease bears it too: a reason counts only when the lease is closed."""
    window_s: int | None = None
    reclaim_started_s: float | None = None
    reclaim_reason: str = ""

    @property
    def key(self) -> tuple[str, int, int, int, str]:
        return self.owner, self.dseq, self.gseq, self.oseq, self.provider

    @property
    def serves(self) -> bool:
        return self.state in ("active", "reclaiming")


class DepositRow(msgspec.Struct, frozen=True):
    owner: str
    height: int
    denom: str
    balance: int
    """dec"""


class EscrowRow(msgspec.Struct, frozen=True):
    scope: str
    xid: str
    owner: str
    settled_at: int
    state: str = "open"
    transferred: tuple[tuple[str, int], ...] = ()
    funds: tuple[tuple[str, int], ...] = ()
    """By denomination (dec); negative where more is owed than there was."""
    deposits: tuple[DepositRow, ...] = ()


class PaymentRow(msgspec.Struct, frozen=True):
    aid: str
    """The xid of the deployment's escrow account."""
    xid: str
    owner: str
    rate: int
    """uact for a block (dec), as all amounts here."""
    state: str = "open"
    balance: int = 0
    unsettled: int = 0
    withdrawn: int = 0


class MintRow(msgspec.Struct, frozen=True):
    owner: str
    to: str
    burned: int
    height: int
    sequence: int
    status: str = "pending"
    tries: int = 0
    minted: int = 0
    spread: int = 0


class Table(Generic[K, V]):
    """Rows by their keys; each change goes to the journal."""

    def __init__(self, journal: list[tuple[Any, Any, Any]], rows: dict[K, V] | None = None) -> None:
        self._rows = rows if rows is not None else {}
        self._journal = journal

    def get(self, key: K) -> V | None:
        return self._rows.get(key)

    def put(self, key: K, row: V) -> None:
        self._journal.append((self, key, self._rows.get(key, _ABSENT)))
        self._rows[key] = row

    def remove(self, key: K) -> None:
        self._journal.append((self, key, self._rows.pop(key)))

    def restore(self, key: K, row: Any) -> None:
        if row is _ABSENT:
            self._rows.pop(key, None)
        else:
            self._rows[key] = row

    def those(self, keys: Iterable[K]) -> list[V]:
        """Return the rows of these keys that are there."""
        return [self._rows[key] for key in keys if key in self._rows]

    def values(self) -> Iterator[V]:
        return iter(list(self._rows.values()))

    def items(self) -> Iterator[tuple[K, V]]:
        return iter(list(self._rows.items()))

    def __len__(self) -> int:
        return len(self._rows)

    def copy(self) -> "Table[K, V]":
        return Table([], dict(self._rows))


class Index(Generic[K, V]):
    """Keys of rows by what they belong to, each once.

    What a refused transaction added stays: a key whose row was taken back is not in its table.
    """

    def __init__(self, keys: dict[K, dict[V, None]] | None = None) -> None:
        self._keys = keys if keys is not None else {}

    def add(self, owner: K, key: V) -> None:
        self._keys.setdefault(owner, {})[key] = None

    def of(self, owner: K) -> tuple[V, ...]:
        return tuple(self._keys.get(owner, ()))

    def copy(self) -> "Index[K, V]":
        return Index({owner: dict(keys) for owner, keys in self._keys.items()})


class State:
    """All tables, the height and the time of the last block."""

    def __init__(self, params: Params | None = None) -> None:
        self.params = params or Params()
        self.height = 1
        self.time_s = 0.0
        self.mint_status = "mint_status_healthy"
        self.on_account_closed: Callable[[EscrowRow], None] = lambda row: None
        self.on_payment_closed: Callable[[PaymentRow], None] = lambda row: None
        self._journal: list[tuple[Any, Any, Any]] = []
        self.accounts: Table[str, AccountRow] = Table(self._journal)
        self.balances: Table[tuple[str, str], int] = Table(self._journal)
        self.supply: Table[str, int] = Table(self._journal)
        self.nonces: Table[tuple[str, int], int] = Table(self._journal)
        """(signer, unix nanoseconds) of unordered transactions that took effect."""
        self.deployments: Table[tuple[str, int], DeploymentRow] = Table(self._journal)
        self.groups: Table[tuple[str, int, int], GroupRow] = Table(self._journal)
        self.orders: Table[tuple[str, int, int, int], OrderRow] = Table(self._journal)
        self.bids: Table[tuple[str, int, int, int, str], BidRow] = Table(self._journal)
        self.leases: Table[tuple[str, int, int, int, str], LeaseRow] = Table(self._journal)
        self.escrow: Table[tuple[str, str], EscrowRow] = Table(self._journal)
        self.payments: Table[tuple[str, str], PaymentRow] = Table(self._journal)
        self.mints: Table[tuple[int, int], MintRow] = Table(self._journal)
        self.bids_of: Index[tuple[str, int], tuple[str, int, int, int, str]] = Index()
        """Of a deployment; a lease has the key of its bid."""
        self.orders_of: Index[tuple[str, int], tuple[str, int, int, int]] = Index()
        self.payments_of: Index[str, tuple[str, str]] = Index()
        """Of the xid of an escrow account."""

    def mark(self) -> int:
        """Return a place in the journal for `undo`."""
        return len(self._journal)

    def undo(self, mark: int) -> None:
        """Take back every change since the mark."""
        while len(self._journal) > mark:
            table, key, row = self._journal.pop()
            table.restore(key, row)

    def forget(self) -> None:
        """End a block: what is in the journal is final."""
        self._journal.clear()

    def snapshot(self) -> "State":
        """Return this state as it is now: what a node that no longer follows the chain goes on answering."""
        frozen = State(self.params)
        for name, value in vars(self).items():
            if isinstance(value, Table | Index):
                setattr(frozen, name, value.copy())
        frozen.height, frozen.time_s, frozen.mint_status = self.height, self.time_s, self.mint_status
        return frozen


def dec(amount: int) -> str:
    """Return a decimal with 18 places, as the chain writes it.

    >>> dec(-6344131225 * 10**12)
    '-6344.131225000000000000'
    """
    sign, amount = ("-", -amount) if amount < 0 else ("", amount)
    return f"{sign}{amount // ONE}.{amount % ONE:018d}"
