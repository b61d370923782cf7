"""An archive in a bucket of S3, or of what speaks like it (path-style addresses).

What S3 itself checks is relied on: the SHA-256 of what is sent is signed with it. `If-None-Match` keeps a part from
being replaced where the service knows it (S3 does; older ones ignore it), so what is not named by its content is looked
for before it is sent, and read back.
"""

import html
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, final
from urllib.parse import urlsplit

from engram.archive.errors import AlreadyThere, Damaged, Missing, PlaceUnavailable
from engram.archive.place import MOST_BYTES
from engram.archive.sigv4 import Credentials, escaped, query_string, signed_headers
from engram.http.client import HttpClient, HttpError, Response, TooLarge

_NAMED_BY_CONTENT: Final = "segments/"
_MOST_LISTING: Final = 4_000_000
_MOST_PAGES: Final = 1_000
_MOST_ERROR: Final = 65_536
_WHOLE_S: Final = 120.0
_KEY: Final = re.compile(r"<Key>([^<]*)</Key>")
_NEXT: Final = re.compile(r"<NextContinuationToken>([^<]*)</NextContinuationToken>")
_CODE: Final = re.compile(r"<Code>([^<]{1,64})</Code>")


@final
class BucketPlace:
    """Parts are objects under a prefix. `endpoint` is the URL of the service: https://s3.eu-central-1.amazonaws.com."""

    def __init__(
        self,
        endpoint: str,
        bucket: str,
        prefix: str,
        credentials: Credentials,
        client: HttpClient,
        now: Callable[[], float],
    ) -> None:
        parts = urlsplit(endpoint)
        self._base = f"{parts.scheme}://{parts.netloc}"
        self._host = parts.netloc
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._credentials = credentials
        self._client = client
        self._now = now

    @property
    def address(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    @property
    def is_local(self) -> bool:
        return False

    @property
    def keeps_forever(self) -> bool:
        return False

    async def price(self, sizes: Sequence[int]) -> int:
        del sizes
        return 0

    async def put(self, name: str, content: bytes) -> None:
        if name.startswith(_NAMED_BY_CONTENT):
            await self._put(name, content)
            return
        try:
            await self._require(name, content)
        except Missing:
            await self._put(name, content)
            await self._require(name, content)

    async def _put(self, name: str, content: bytes) -> None:
        answer = await self._ask("PUT", name, content=content, headers={"if-none-match": "*"})
        if answer.status in (409, 412):
            await self._require(name, content)
        elif answer.status not in (200, 201, 204):
            raise self._refused(name, answer)

    async def resume(self, name: str) -> bool:
        try:
            await self.get(name, MOST_BYTES)
        except Missing:
            return False
        return True

    async def _require(self, name: str, content: bytes) -> None:
        if await self.get(name, MOST_BYTES) != content:
            raise AlreadyThere(f"{self.address}/{name} is there and has other bytes")

    async def get(self, name: str, most: int) -> bytes:
        answer = await self._ask("GET", name, most=most)
        if answer.status == 404:
            raise Missing(f"{self.address}/{name} is missing")
        if answer.status != 200:
            raise self._refused(name, answer)
        return answer.content

    async def delete(self, name: str) -> None:
        answer = await self._ask("DELETE", name)
        if answer.status not in (200, 204, 404):
            raise self._refused(name, answer)

    async def names(self, folder: str) -> list[str]:
        prefix, found, token = f"{self._prefix}{folder}/", list[str](), ""
        for _ in range(_MOST_PAGES):
            query = {"list-type": "2", "prefix": prefix, **({"continuation-token": token} if token else {})}
            answer = await self._ask("GET", "", query=query, most=_MOST_LISTING)
            if answer.status != 200:
                raise self._refused(f"{folder}/", answer)
            page = answer.content.decode("utf-8", "replace")
            found += [html.unescape(key).removeprefix(self._prefix) for key in _KEY.findall(page)]
            more = _NEXT.search(page)
            if more is None:
                return sorted(found)
            token = html.unescape(more[1])
        raise PlaceUnavailable(f"{self.address}/{folder} has more than {_MOST_PAGES} pages of names")

    async def _ask(
        self,
        method: str,
        name: str,
        *,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        most: int = _MOST_ERROR,
    ) -> Response:
        key = f"{self._prefix}{name}" if name else ""
        path = "/" + escaped(f"{self._bucket}/{key}".rstrip("/"), safe="/")
        sent = signed_headers(
            self._credentials, method, self._host, path, query or {}, headers or {}, content, self._now()
        )
        url = f"{self._base}{path}" + (f"?{query_string(query)}" if query else "")
        try:
            return await self._client.request(
                method,
                url,
                content=content if method == "PUT" else None,
                headers=sent,
                read_s=_WHOLE_S,
                total_s=_WHOLE_S,
                max_bytes=max(most, _MOST_ERROR),
            )
        except TooLarge:
            raise Damaged(f"{self.address}/{name} has more than {most} bytes") from None
        except HttpError as error:
            raise PlaceUnavailable(f"{self.address} at {self._host} does not answer: {error}") from error

    def _refused(self, name: str, answer: Response) -> PlaceUnavailable:
        code = _CODE.search(answer.content.decode("utf-8", "replace"))
        why = f"{answer.status} {code[1]}" if code else str(answer.status)
        return PlaceUnavailable(f"{self.address}/{name}: {self._host} answered {why}")
