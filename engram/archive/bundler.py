"""What is said to Arweave: a bundler takes data items, a gateway shows what is there. Wire forms of Turbo's services.

An upload has four outcomes and they are kept apart: taken (200, or 202 where the id is known already), payment is
wanted (402), refused (any other 4xx), and unknown (no answer, 5xx): then the same bytes are sent again, since their id
is the same and is charged once. Taken is not there: only bytes that were read back count.
"""

from typing import Final, final
from urllib.parse import urljoin, urlsplit

import msgspec

from engram import wire
from engram.archive.errors import Damaged, NotAccepted, PaymentUnknown, PaymentWanted, PlaceUnavailable
from engram.http.client import HttpClient, HttpError, Response, TooLarge
from engram.payments import x402
from engram.payments.errors import MalformedPayment
from engram.payments.model import Requirements
from engram.payments.networks import Network

_UPLOAD_S: Final = 120.0
_ASK_S: Final = 30.0
_MOST_ANSWER: Final = 4_000_000
_MOST_PAGE_BYTES: Final = 65_536
"""Room for the page that says that something is not there."""
_PAGE: Final = 100
_MOST_PAGES: Final = 1_000
_ELSEWHERE: Final = (301, 302, 303, 307, 308)
_PAID: Final = "/v1/x402/data-item/signed"
_FAILED: Final = "FAILED"
"""The status of an item that was taken and came to nothing: it may be sent again."""
_QUERY: Final = (
    "query($owners:[String!],$tags:[TagFilter!],$after:String){transactions(owners:$owners,tags:$tags,first:100,"
    "after:$after){pageInfo{hasNextPage}edges{cursor node{id owner{address} tags{name value}}}}}"
)


class Known(msgspec.Struct, frozen=True):
    """An item that the gateway has indexed."""

    id: str
    owner: str
    """The address of the key that signed it."""
    tags: dict[str, str]


class _Tag(msgspec.Struct, frozen=True):
    name: str
    value: str


class _Owner(msgspec.Struct, frozen=True):
    address: str


class _Node(msgspec.Struct, frozen=True):
    id: str
    owner: _Owner
    tags: list[_Tag]

    @property
    def known(self) -> Known:
        return Known(self.id, self.owner.address, {tag.name: tag.value for tag in self.tags})


class _Edge(msgspec.Struct, frozen=True):
    cursor: str
    node: _Node


class _Info(msgspec.Struct, frozen=True, rename="camel"):
    has_next_page: bool


class _Transactions(msgspec.Struct, frozen=True, rename="camel"):
    page_info: _Info
    edges: list[_Edge]


class _Data(msgspec.Struct, frozen=True):
    transactions: _Transactions


class _Answer(msgspec.Struct, frozen=True):
    data: _Data


class _Price(msgspec.Struct, frozen=True):
    winc: str


class _UsdcPrice(msgspec.Struct, frozen=True, rename="camel"):
    usdc_amount: str


class _Status(msgspec.Struct, frozen=True):
    status: str


_decode_answer = wire.decoder(_Answer).decode
_decode_status = wire.decoder(_Status).decode
_decode_price = wire.decoder(_Price).decode
_decode_usdc_price = wire.decoder(_UsdcPrice).decode


@final
class Bundler:
    """One upload service with the gateway that shows what it took; URLs without a slash at the end."""

    def __init__(self, client: HttpClient, upload_url: str, gateway_url: str, payment_url: str = "") -> None:
        self._client = client
        self._upload = upload_url.rstrip("/")
        self._gateway = gateway_url.rstrip("/")
        self._payment = payment_url.rstrip("/")

    async def price(self, size: int) -> int:
        """Return what `size` bytes cost, in winston credits; 0 where no price is asked for. Raises PlaceUnavailable."""
        if not self._payment:
            return 0
        answer = await self._request("GET", f"{self._payment}/v1/price/bytes/{size}")
        if answer.status != 200:
            raise PlaceUnavailable(f"{self._payment} answered {answer.status} for the price of {size} bytes")
        try:
            price = int(_decode_price(answer.content).winc)
        except (msgspec.MsgspecError, ValueError):
            raise PlaceUnavailable(f"{self._payment} names no price for {size} bytes") from None
        if price < 0:
            raise PlaceUnavailable(f"{self._payment} names the price {price} for {size} bytes")
        return price

    async def send(self, item: bytes) -> None:
        """Return once the bundler has taken the item; sending the same bytes again is safe.

        Raises PaymentWanted, NotAccepted, PlaceUnavailable (it may have taken them).
        """
        answer = await self._post("/v1/tx/ethereum", item)
        if answer.status == 402:
            said = _said(answer) or "it says no more"
            raise PaymentWanted(f"{self._upload} wants to be paid for {len(item)} bytes: {said}")
        self._require_taken(answer)

    async def usdc_price(self, size: int, network: Network) -> int:
        """Return about what `size` bytes cost by x402, in millionths of a USDC; the terms say it exactly.

        Raises PlaceUnavailable.
        """
        url = f"{self._upload}/v1/price/x402/data-item/usdc-{network.v1_name}/{size}"
        answer = await self._request("GET", url)
        try:
            price = int(_decode_usdc_price(answer.content).usdc_amount) if answer.status == 200 else -1
        except (msgspec.MsgspecError, ValueError):
            price = -1
        if price < 0:
            raise PlaceUnavailable(f"{self._upload} answered {answer.status} and no price in USDC for {size} bytes")
        return price

    async def terms(self, item: bytes, network: Network) -> Requirements | None:
        """Bring an item where x402 is taken; return what it asks to be paid, None when it took the item as it is.

        Raises PaymentWanted when it asks for what cannot be paid, NotAccepted, PlaceUnavailable (it may have taken it).
        """
        answer = await self._post(_PAID, item)
        if answer.status != 402:
            self._require_taken(answer)
            return None
        try:
            offers = x402.decode_v1_offers(answer.content)
        except MalformedPayment as error:
            raise PaymentWanted(f"{self._upload} wants to be paid, and its terms cannot be read: {error}") from None
        for offer in offers:
            if offer.network == network:
                return offer
        raise PaymentWanted(f"{self._upload} wants to be paid, and not in USDC on {network.v1_name}")

    async def pay(self, item: bytes, payment: str) -> None:
        """Return once the bundler has taken an item with the X-PAYMENT header `payment`.

        Raises PlaceUnavailable: it may have taken the item, the money, both or none. PaymentUnknown says why.
        """
        answer = await self._post(_PAID, item, {"x-payment": payment})
        try:
            self._require_taken(answer)
        except NotAccepted as error:
            raise PaymentUnknown(f"{error} (a payment was sent with it, and will be sent again unchanged)") from None

    async def _post(self, path: str, item: bytes, headers: dict[str, str] | None = None) -> Response:
        complete = {"content-type": "application/octet-stream", **(headers or {})}
        return await self._request("POST", f"{self._upload}{path}", content=item, headers=complete, total_s=_UPLOAD_S)

    def _require_taken(self, answer: Response) -> None:
        if answer.status in (200, 201, 202):
            return
        said = _said(answer)
        if 400 <= answer.status < 500 and answer.status not in (408, 425, 429):
            raise NotAccepted(f"{self._upload} answered {answer.status}: {said}")
        raise PlaceUnavailable(f"{self._upload} answered {answer.status}: it may have taken the item; send it again")

    async def is_known(self, item_id: str) -> bool:
        """Return whether the bundler has taken the item before. Raises PlaceUnavailable."""
        answer = await self._request("GET", f"{self._upload}/v1/tx/{item_id}/status")
        if answer.status == 200:
            try:
                return _decode_status(answer.content).status != _FAILED
            except msgspec.MsgspecError:
                raise PlaceUnavailable(f"{self._upload} names no status of item {item_id}") from None
        if answer.status == 404:
            return False
        raise PlaceUnavailable(f"{self._upload} answered {answer.status} for the status of item {item_id}")

    async def read(self, item_id: str, most: int) -> bytes | None:
        """Return the data of an item, or None while the gateway does not have it.

        Raises PlaceUnavailable, Damaged for more than `most` bytes.
        """
        url = f"{self._gateway}/{item_id}"
        answer = await self._request("GET", url, most=most, total_s=_UPLOAD_S)
        if answer.status in _ELSEWHERE:
            url = self._sandbox_of(url, answer)
            answer = await self._request("GET", url, most=most, total_s=_UPLOAD_S)
        if answer.status == 200:
            if len(answer.content) > most:
                raise Damaged(f"item {item_id} has more than {most} bytes")
            return answer.content
        if answer.status in (202, 204, 404):
            return None
        raise PlaceUnavailable(f"{self._gateway} answered {answer.status} for item {item_id}")

    def _sandbox_of(self, url: str, answer: Response) -> str:
        """Return where a gateway shows an item: below its own name, so that pages there cannot reach one another.

        Raises PlaceUnavailable for any other address.
        """
        found = urljoin(url, answer.headers.get("location", ""))
        here, there = urlsplit(url), urlsplit(found)
        own = there.hostname == here.hostname or (there.hostname or "").endswith(f".{here.hostname}")
        if not own or (there.scheme, there.port) != (here.scheme, here.port) or there.username is not None:
            raise PlaceUnavailable(f"{self._gateway} sends to {found[:200]}, which is not below its own name")
        return found

    async def find(self, owner: str | None, tags: dict[str, str], most: int | None = None) -> list[Known]:
        """Return the items of an owner's address, or of anyone's, that have these tags: at least `most`, if they are.

        The gateway may not know the newest yet. Raises PlaceUnavailable.
        """
        found: list[Known] = []
        after: str | None = None
        wanted = [{"name": name, "values": [value]} for name, value in tags.items()]
        for _ in range(_MOST_PAGES):
            query = {
                "query": _QUERY,
                "variables": {"owners": None if owner is None else [owner], "tags": wanted, "after": after},
            }
            answer = await self._request("POST", f"{self._gateway}/graphql", json=query)
            if answer.status != 200:
                raise PlaceUnavailable(f"{self._gateway}/graphql answered {answer.status}")
            try:
                page = _decode_answer(answer.content).data.transactions
            except msgspec.MsgspecError as error:
                raise PlaceUnavailable(f"{self._gateway}/graphql answered what it should not: {error}") from None
            found += [
                Known(each.node.id, each.node.owner.address, {tag.name: tag.value for tag in each.node.tags})
                for each in page.edges
            ]
            if not page.page_info.has_next_page or not page.edges or (most is not None and len(found) >= most):
                return found
            after = page.edges[-1].cursor
        raise PlaceUnavailable(f"{self._gateway} has more than {_MOST_PAGES * _PAGE} items of {owner}")

    async def _request(
        self,
        method: str,
        url: str,
        *,
        json: object = None,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        most: int = _MOST_ANSWER,
        total_s: float = _ASK_S,
    ) -> Response:
        try:
            return await self._client.request(
                method,
                url,
                json=json,
                content=content,
                headers=headers,
                read_s=total_s,
                total_s=total_s,
                max_bytes=max(most, _MOST_PAGE_BYTES),
            )
        except TooLarge:
            raise Damaged(f"{url} answers with more than {most} bytes") from None
        except HttpError as error:
            raise PlaceUnavailable(f"{url} does not answer: {error}") from error


def _said(answer: Response) -> str:
    return answer.content[:200].decode("utf-8", "replace")
