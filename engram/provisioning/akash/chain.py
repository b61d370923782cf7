"""Reads of the Akash chain over REST: account, deployments, bids, leases, providers, certificates, parameters.

Every read is of one usable endpoint (`endpoints.py`); that something is *not* there is the word of two, and so is what
opens our doors to a provider (its address, its certificates) or ends a lease. Raises
Unavailable when no endpoint answers, or none that could be read.
"""

import base64
import binascii
from collections.abc import Callable, Hashable, Sequence
from typing import Final, TypeVar, final
from urllib.parse import urlencode

from engram.http.client import Response
from engram.provisioning.akash import bech32, versions
from engram.provisioning.akash import chain_model as m
from engram.provisioning.akash.endpoints import Endpoint, Endpoints, Unanswered, decoded, refusal
from engram.provisioning.akash.errors import MalformedAddress
from engram.provisioning.akash.model import PICO, Bid
from engram.provisioning.errors import Unavailable

T = TypeVar("T")

PAGE: Final = 100
"""Rows of a page: decoding more holds up the loop for longer than it may be held up."""
PAGES: Final = 500
"""At most: fifty thousand deployments of one account."""
_DEPLOYMENT: Final = f"/akash/deployment/{versions.DEPLOYMENT}"
_MARKET: Final = f"/akash/market/{versions.MARKET}"
_PROVIDER: Final = f"/akash/provider/{versions.PROVIDER}"
_CERT: Final = f"/akash/cert/{versions.CERT}"
_BME: Final = f"/akash/bme/{versions.BME}"


@final
class Chain:
    """What is read of one account's affairs."""

    def __init__(self, endpoints: Endpoints, owner: str) -> None:
        self.endpoints = endpoints
        self.owner = owner
        self._number: int | None = None

    async def probe(self) -> None:
        """Check that the chain speaks the versions of modules that this program does.

        Raises Unavailable naming the module and version that it does not.
        """
        for module, version, path in (
            ("deployment", versions.DEPLOYMENT, f"{_DEPLOYMENT}/params"),
            ("market", versions.MARKET, f"{_MARKET}/params"),
        ):
            answer = await self._answer(path)
            if answer.status in (404, 501):
                raise Unavailable(
                    f"the chain does not speak akash.{module}.{version} ({answer.status}): it was upgraded, and this "
                    "version of Engram cannot deploy on it"
                )
            if answer.status != 200:
                raise Unavailable(f"akash.{module}.{version} answers {answer.status}")

    async def account(self) -> m.BaseAccount | None:
        """Return the owner's account; None for one that was never funded."""
        path = f"/cosmos/auth/v1beta1/accounts/{self.owner}"
        answer = await self._found_or_none(path, m.AccountAnswer, is_it=lambda a: a.account.address == self.owner)
        return None if answer is None else answer.account

    async def account_number(self) -> int:
        """Return the number that every signature includes; it never changes. Raises Unavailable."""
        if self._number is None:
            account = await self.account()
            if account is None:
                raise Unavailable(f"the account {self.owner} was never funded: send AKT to it")
            self._number = int(account.account_number)
        return self._number

    async def balance(self, denom: str) -> int:
        """Return what the owner has of `uakt` or `uact`."""
        answer = await self._found(f"/cosmos/bank/v1beta1/balances/{self.owner}", m.BalancesAnswer)
        return m.amount_of(answer.balances, denom) // PICO

    async def min_deposit_uact(self, most: int) -> int:
        """Return the least that a deployment must deposit, where it is no more than `most`; Unavailable else."""
        params = (await self._found(f"{_DEPLOYMENT}/params", m.DeploymentParamsAnswer)).params
        least = m.amount_of(params.min_deposits, "uact") // PICO or 500_000
        if not 0 < least <= most:
            raise Unavailable(f"the chain's min_deposits are {least} uact; a deployment may hold at most {most}")
        return least

    async def deployment(self, dseq: int, at_height: int = 0) -> m.DeploymentInfo | None:
        """Return the deployment; None when endpoints at this height or above agree that it was never made."""
        query = urlencode({"id.owner": self.owner, "id.dseq": dseq})

        def is_it(info: m.DeploymentInfo) -> bool:
            return info.is_of(self.owner, dseq)

        path = f"{_DEPLOYMENT}/deployments/info?{query}"
        return await self._found_or_none(path, m.DeploymentInfo, at_height, is_it=is_it)

    async def deployments(self) -> Sequence[m.DeploymentInfo]:
        """Return the owner's active deployments. Raises Unavailable when there are more than `PAGE * PAGES`."""
        found: list[m.DeploymentInfo] = []
        query = {"filters.owner": self.owner, "filters.state": "active", "pagination.limit": str(PAGE)}
        for _ in range(PAGES):
            page = await self._found(f"{_DEPLOYMENT}/deployments/list?{urlencode(query)}", m.DeploymentsAnswer)
            found += page.deployments or ()
            if page.pagination is None or not page.pagination.next_key:
                return found
            query["pagination.key"] = page.pagination.next_key
        raise Unavailable(f"the account has more than {PAGE * PAGES} active deployments")

    async def bids(self, dseq: int) -> Sequence[Bid]:
        """Return the open bids for the deployment."""
        query = urlencode({"filters.owner": self.owner, "filters.dseq": dseq, "filters.state": "open"})
        answer = await self._found(f"{_MARKET}/bids/list?{query}", m.BidsAnswer)
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
        """Return the leases of a deployment in any state, where endpoints agree which of them serve."""
        query = urlencode({"filters.owner": self.owner, "filters.dseq": dseq})
        answer = await self._agreed(
            f"{_MARKET}/leases/list?{query}",
            m.LeasesAnswer,
            lambda found: frozenset((lease.lease.id.provider, lease.is_serving) for lease in found.leases or ()),
        )
        return answer.leases or ()

    async def provider(self, address: str) -> str | None:
        """Return the provider's host URI as it registered it; None for a provider that is not there."""
        path = f"{_PROVIDER}/providers/{address}"
        if await self._found_or_none(path, m.ProviderAnswer) is None:
            return None
        answer = await self._agreed(path, m.ProviderAnswer, lambda found: found.provider.host_uri)
        return answer.provider.host_uri

    async def certificates(self, address: str) -> Sequence[str]:
        """Return the provider's valid certificates, PEM."""
        query = urlencode({"filter.owner": address, "filter.state": "valid"})
        answer = await self._agreed(
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

    async def transaction(self, name: str) -> m.TxResponse | None:
        """Return what became of the transaction of that hash (64 hex digits); None when it is not found."""
        answer = await self._found_or_none(f"/cosmos/tx/v1beta1/txs/{name}", m.TxAnswer)
        return None if answer is None else answer.tx_response

    async def mint_records(self, status: str) -> Sequence[m.MintRecord]:
        """Return the owner's mints of that status: pending, executed or canceled."""
        query = urlencode({"filters.source": self.owner, "filters.status": f"ledger_record_status_{status}"})
        return (await self._found(f"{_BME}/ledger?{query}", m.MintLedgerAnswer)).records or ()

    async def _leases(self, filters: dict[str, str]) -> list[m.Lease]:
        found: list[m.Lease] = []
        query = {"filters.owner": self.owner, "pagination.limit": str(PAGE), **filters}
        for _ in range(PAGES):
            page = await self._found(f"{_MARKET}/leases/list?{urlencode(query)}", m.LeasesAnswer)
            found += page.leases or ()
            if page.pagination is None or not page.pagination.next_key:
                return found
            query["pagination.key"] = page.pagination.next_key
        raise Unavailable(f"the account has more than {PAGE * PAGES} leases")

    async def _found(self, path: str, type_: type[T]) -> T:
        """Return the first answer that can be read. Raises Unavailable."""
        reasons = []
        for endpoint in await self.endpoints.usable():
            answer = await self._ask(endpoint, path)
            found = answer if isinstance(answer, str) else self._read(endpoint, answer, type_)
            if not isinstance(found, str):
                return found
            reasons.append(found)
        raise Unavailable("; ".join(reasons))

    async def _agreed(self, path: str, type_: type[T], said: Callable[[T], Hashable]) -> T:
        """Return an answer of which `quorum` endpoints say the same, or the only one that can be used.

        Raises Unavailable, where they do not agree as well.
        """
        usable = await self.endpoints.usable()
        wanted = min(self.endpoints.quorum, len(usable))
        reasons: list[str] = []
        votes: dict[Hashable, int] = {}
        for endpoint in usable:
            answer = await self._ask(endpoint, path)
            found = answer if isinstance(answer, str) else self._read(endpoint, answer, type_)
            if isinstance(found, str):
                reasons.append(found)
                continue
            what = said(found)
            votes[what] = votes.get(what, 0) + 1
            if votes[what] >= wanted:
                return found
        raise Unavailable("; ".join([*reasons, f"{sum(votes.values())} endpoints do not agree on {path}"]))

    async def _found_or_none(
        self, path: str, type_: type[T], at_height: int = 0, *, is_it: Callable[[T], bool] = lambda found: True
    ) -> T | None:
        """Return the first answer that can be read; None when `quorum` endpoints at this height or above agree on 404.

        What is not `is_it` is an answer to another question: an empty document, say. Raises Unavailable.
        """
        absent, reasons = 0, []
        for endpoint in await self.endpoints.usable(at_height):
            answer = await self._ask(endpoint, path)
            if isinstance(answer, Response) and answer.status == 404:
                absent += 1
                if absent >= self.endpoints.quorum:
                    return None
                continue
            found = answer if isinstance(answer, str) else self._read(endpoint, answer, type_)
            if not isinstance(found, str) and not is_it(found):
                self.endpoints.failed(endpoint, "it answers with something else")
                found = f"{endpoint.url}: it answers with something else"
            if not isinstance(found, str):
                return found
            reasons.append(found)
        raise Unavailable("; ".join(reasons) or "only one endpoint says that it is not there, and no other is usable")

    async def _answer(self, path: str) -> Response:
        """Return the first answer that is no server's own trouble."""
        reasons = []
        for endpoint in await self.endpoints.usable():
            answer = await self._ask(endpoint, path)
            if isinstance(answer, Response):
                return answer
            reasons.append(answer)
        raise Unavailable("; ".join(reasons))

    def _read(self, endpoint: Endpoint, answer: Response, type_: type[T]) -> T | str:
        """Return what the endpoint answers; a text that says why it cannot be used, as another one's perhaps can."""
        try:
            if answer.status != 200:
                raise Unavailable(f"the chain answers {answer.status}: {refusal(answer).message[:200]}")
            return decoded(answer, type_)
        except Unavailable as error:
            self.endpoints.failed(endpoint, str(error))
            return f"{endpoint.url}: {error}"

    async def _ask(self, endpoint: Endpoint, path: str) -> Response | str:
        """Return the endpoint's answer; a text that says why there is none."""
        answer = await self.endpoints.ask(endpoint, "GET", path)
        if isinstance(answer, Unanswered):
            why = answer.reason
        elif answer.status >= 500 and answer.status != 501:
            why = f"it answers {answer.status}"
        else:
            return answer
        self.endpoints.failed(endpoint, why)
        return f"{endpoint.url}: {why}"


def _is_address(text: str) -> bool:
    try:
        bech32.decode(text)
    except MalformedAddress:
        return False
    return True
