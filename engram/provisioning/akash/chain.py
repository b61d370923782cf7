"""Reads of the Akash chain over REST: account, deployments, bids, leases, providers, certificates, parameters.

What one endpoint says alone (`reads.py`) decides nothing that costs money or a memory. These are the word of two: that
something is not there, that a lease or a deployment has ended, what a lease costs, that a provider gives notice, who a
provider is, what an escrow holds, how large a deposit must be, what became of a mint. Everything raises Unavailable
when no endpoint answers, or none that could be read.
"""

import base64
import binascii
import math
from collections.abc import Hashable, Sequence
from typing import Final, TypeVar, final
from urllib.parse import urlencode

import trio

from engram.provisioning.akash import bech32, versions
from engram.provisioning.akash import chain_model as m
from engram.provisioning.akash import cosmos_model as c
from engram.provisioning.akash.endpoints import Endpoints
from engram.provisioning.akash.errors import MalformedAddress, UnknownVersion
from engram.provisioning.akash.model import PICO, Bid
from engram.provisioning.akash.reads import Reads
from engram.provisioning.errors import Unavailable

T = TypeVar("T", bound=Hashable)

PAGE: Final = 100
"""Rows of a page: decoding more holds up the loop for longer than it may be held up."""
PARAMS_KEPT_S: Final = 600.0
PAGES: Final = 500
"""At most: fifty thousand deployments of one account."""
_DEPLOYMENT: Final = f"/akash/deployment/{versions.DEPLOYMENT}"
_MARKET: Final = f"/akash/market/{versions.MARKET}"
_PROVIDER: Final = f"/akash/provider/{versions.PROVIDER}"
_CERT: Final = f"/akash/cert/{versions.CERT}"
_BME: Final = f"/akash/bme/{versions.BME}"
_PROBED: Final = (
    ("deployment", versions.DEPLOYMENT, f"{_DEPLOYMENT}/params"),
    ("market", versions.MARKET, f"{_MARKET}/params"),
    ("provider", versions.PROVIDER, f"{_PROVIDER}/providers?pagination.limit=1"),
    ("cert", versions.CERT, f"{_CERT}/certificates/list?pagination.limit=1"),
    ("bme", versions.BME, f"{_BME}/params"),
)
"""Of each module something that every chain which has it can answer; an endpoint in good order may answer 501 to what
the escrow module lists, whose accounts come with the deployments."""


@final
class Chain:
    """What is read of one account's affairs."""

    def __init__(self, endpoints: Endpoints, owner: str) -> None:
        self.endpoints = endpoints
        self.owner = owner
        self._reads = Reads(endpoints)
        self._number: int | None = None
        self._known_params: dict[str, tuple[float, object]] = {}

    async def probe(self) -> None:
        """Check that the chain speaks the versions of every module that this program does.

        Raises UnknownVersion naming the module and version that it does not, by the word of `quorum` endpoints;
        Unavailable.
        """
        for module, version, path in _PROBED:
            if not await self._reads.is_spoken(path):
                raise UnknownVersion(
                    f"the chain does not speak akash.{module}.{version}: it was upgraded, and this version of Engram "
                    "cannot deploy on it"
                )

    async def account(self) -> c.BaseAccount | None:
        """Return the owner's account; None for one that was never funded."""
        answer = await self._reads.found_or_none(
            self._account_path, c.AccountAnswer, is_it=lambda answer: answer.account.address == self.owner
        )
        return None if answer is None else answer.account

    async def account_number(self) -> int:
        """Return the number that every signature includes; it never changes. Raises Unavailable."""
        if self._number is None:
            account = await self._reads.agreed_or_none(
                self._account_path,
                c.AccountAnswer,
                lambda answer: answer.account.account_number,
                is_it=lambda answer: answer.account.address == self.owner,
            )
            if account is None:
                raise Unavailable(f"the account {self.owner} was never funded: send AKT to it")
            self._number = int(account.account.account_number)
        return self._number

    async def balance(self, denom: str) -> tuple[int, int]:
        """Return the lowest and the highest that endpoints say the owner has of `uakt` or `uact`."""
        return await self._reads.values(
            f"/cosmos/bank/v1beta1/balances/{self.owner}",
            c.BalancesAnswer,
            lambda answer: c.amount_of(answer.balances, denom) // PICO,
        )

    async def min_deposit_uact(self, most: int) -> int:
        """Return the least that a deployment must deposit, where it is no more than `most`; Unavailable else."""
        answer = await self._params(f"{_DEPLOYMENT}/params", m.DeploymentParamsAnswer)
        least = c.amount_of(answer.params.min_deposits, "uact") // PICO or 500_000
        if not 0 < least <= most:
            raise Unavailable(f"the chain's min_deposits are {least} uact; a deployment may hold at most {most}")
        return least

    async def notice_s(self, wanted_s: int) -> int:
        """Return the notice that is asked of providers: the one that is wanted, within the chain's bounds."""
        params = (await self._params(f"{_MARKET}/params", m.MarketParamsAnswer)).params
        least_s = math.ceil(float(params.min_reclamation_window.rstrip("s")))
        return max(least_s, min(int(float(params.max_reclamation_window.rstrip("s"))), wanted_s))

    async def min_mint_uact(self) -> int:
        """Return the least that can be minted."""
        answer = await self._params(f"{_BME}/params", m.MintParamsAnswer)
        return c.amount_of(answer.params.min_mint, "uact") // PICO

    async def deployment(self, dseq: int) -> m.DeploymentInfo | None:
        """Return the deployment as one endpoint shows it; None when endpoints agree that it was never made."""
        return await self._reads.found_or_none(
            self._deployment_path(dseq), m.DeploymentInfo, is_it=lambda info: info.is_of(self.owner, dseq)
        )

    async def deployment_agreed(self, dseq: int, at_height: int = 0) -> m.DeploymentInfo | None:
        """Return the deployment where endpoints at this height or above agree on its state and its escrow; None: they
        agree that it was never made."""
        return await self._reads.agreed_or_none(
            self._deployment_path(dseq),
            m.DeploymentInfo,
            lambda info: (info.is_active, info.hash, info.funds, info.settled_at, info.spent_uact),
            at_height,
            is_it=lambda info: info.is_of(self.owner, dseq),
        )

    async def deployments(self) -> Sequence[m.DeploymentInfo]:
        """Return the owner's active deployments. Raises Unavailable when there are more than `PAGE * PAGES`."""
        found: list[m.DeploymentInfo] = []
        query = {"filters.owner": self.owner, "filters.state": "active", "pagination.limit": str(PAGE)}
        for _ in range(PAGES):
            page = await self._reads.found(f"{_DEPLOYMENT}/deployments/list?{urlencode(query)}", m.DeploymentsAnswer)
            found += page.deployments or ()
            if page.pagination is None or not page.pagination.next_key:
                return found
            query["pagination.key"] = page.pagination.next_key
        raise Unavailable(f"the account has more than {PAGE * PAGES} active deployments")

    async def bids(self, dseq: int) -> Sequence[Bid]:
        """Return the open bids for the deployment."""
        query = urlencode({"filters.owner": self.owner, "filters.dseq": dseq, "filters.state": "open"})
        answer = await self._reads.found(f"{_MARKET}/bids/list?{query}", m.BidsAnswer)
        found = []
        for row in answer.bids or ():
            if row.bid.state == "open" and row.bid.id.owner == self.owner and int(row.bid.id.dseq) == dseq:
                if not _is_address(row.bid.id.provider):
                    continue
                try:
                    found.append(row.known())
                except ValueError as error:
                    raise Unavailable(f"a bid cannot be read: {error}") from error
        return found

    async def leases(self, dseq: int | None = None) -> Sequence[m.Lease]:
        """Return the leases of a deployment in any state, or every one of the owner that serves."""
        found: list[m.Lease] = []
        if dseq is not None:
            return await self._leases({"filters.dseq": str(dseq)})
        for state in ("active", "reclaiming"):
            found += await self._leases({"filters.state": state})
        return found

    async def leases_agreed(self, dseq: int) -> Sequence[m.Lease]:
        """Return the leases of a deployment in any state, where endpoints agree on state, notice and price of each."""
        query = urlencode({"filters.owner": self.owner, "filters.dseq": dseq})

        def said(found: m.LeasesAnswer) -> Hashable:
            return frozenset(
                (lease.lease.id, lease.is_serving, lease.ends_at, lease.price) for lease in found.leases or ()
            )

        return (await self._reads.agreed(f"{_MARKET}/leases/list?{query}", m.LeasesAnswer, said)).leases or ()

    async def provider(self, address: str) -> str | None:
        """Return the provider's host URI as it registered it; None for a provider that is not there."""
        path = f"{_PROVIDER}/providers/{address}"
        if await self._reads.found_or_none(path, m.ProviderAnswer) is None:
            return None
        answer = await self._reads.agreed(path, m.ProviderAnswer, lambda found: found.provider.host_uri)
        return answer.provider.host_uri

    async def certificates(self, address: str) -> Sequence[str]:
        """Return the provider's valid certificates, PEM."""
        query = urlencode({"filter.owner": address, "filter.state": "valid"})
        answer = await self._reads.agreed(
            f"{_CERT}/certificates/list?{query}",
            m.CertificatesAnswer,
            lambda found: frozenset(row.certificate.cert for row in found.certificates or ()),
        )
        found = []
        for row in answer.certificates or ():
            try:
                found.append(base64.b64decode(row.certificate.cert, validate=True).decode("ascii"))
            except (binascii.Error, UnicodeDecodeError):
                continue
        return found

    async def answers_of(self, name: str) -> bytes | None:
        """Return what the messages of a transaction were answered, by its hash (64 hex digits); None: not indexed yet.

        Empty when it cannot be read.
        """
        answer = await self._reads.agreed_or_none(
            f"/cosmos/tx/v1beta1/txs/{name}",
            c.TxAnswer,
            lambda answer: answer.tx_response.data,
            is_it=lambda answer: answer.tx_response.txhash.upper() == name,
        )
        if answer is None:
            return None
        try:
            return binascii.unhexlify(answer.tx_response.data)
        except binascii.Error:
            return b""

    async def mint_records(self, status: str) -> Sequence[m.MintRecord]:
        """Return the owner's mints of that status: pending, executed or canceled."""
        query = {
            "filters.source": self.owner,
            "filters.status": f"ledger_record_status_{status}",
            "pagination.limit": str(PAGE),
        }

        def said(page: m.MintLedgerAnswer) -> Hashable:
            is_last = page.pagination is None or not page.pagination.next_key
            return frozenset(record.id for record in page.records or ()), is_last

        found: list[m.MintRecord] = []
        for _ in range(PAGES):
            page = await self._reads.agreed(f"{_BME}/ledger?{urlencode(query)}", m.MintLedgerAnswer, said)
            found += page.records or ()
            if page.pagination is None or not page.pagination.next_key:
                return found
            query["pagination.key"] = page.pagination.next_key
        raise Unavailable(f"the account has more than {PAGE * PAGES} mints")

    async def _params(self, path: str, type_: type[T]) -> T:
        """Return the parameters of a module, as endpoints agree on them; read again every `PARAMS_KEPT_S`."""
        until, known = self._known_params.get(path, (0.0, None))
        if isinstance(known, type_) and trio.current_time() < until:
            return known
        found = await self._reads.agreed(path, type_, lambda answer: answer)
        self._known_params[path] = trio.current_time() + PARAMS_KEPT_S, found
        return found

    @property
    def _account_path(self) -> str:
        return f"/cosmos/auth/v1beta1/accounts/{self.owner}"

    def _deployment_path(self, dseq: int) -> str:
        return f"{_DEPLOYMENT}/deployments/info?{urlencode({'id.owner': self.owner, 'id.dseq': dseq})}"

    async def _leases(self, filters: dict[str, str]) -> list[m.Lease]:
        found: list[m.Lease] = []
        query = {"filters.owner": self.owner, "pagination.limit": str(PAGE), **filters}
        for _ in range(PAGES):
            page = await self._reads.found(f"{_MARKET}/leases/list?{urlencode(query)}", m.LeasesAnswer)
            found += page.leases or ()
            if page.pagination is None or not page.pagination.next_key:
                return found
            query["pagination.key"] = page.pagination.next_key
        raise Unavailable(f"the account has more than {PAGE * PAGES} leases")


def _is_address(text: str) -> bool:
    try:
        bech32.decode(text)
    except MalformedAddress:
        return False
    return True
