"""How much of what an endpoint answers is believed, before anything is made of it.

    found            the first answer that can be read: what a lie about it can do is bounded by what is done next
    found_or_none    the same; that something is *not* there is the word of `quorum` endpoints
    agreed           what `quorum` endpoints say the same of
    agreed_or_none   the same, at a height; that it is not there is something to agree on as well
    values           the lowest and the highest of what `quorum` endpoints say

Where fewer endpoints can be used now than the quorum, their word is enough. All raise Unavailable when no endpoint
answers, or none that can be read.
"""

from collections.abc import Callable, Hashable
from typing import TypeVar, final

from engram.http.client import Response
from engram.provisioning.akash.endpoints import Endpoint, Endpoints, Unanswered, decoded, refusal
from engram.provisioning.errors import Unavailable

T = TypeVar("T")


def _any(_: object) -> bool:
    return True


@final
class Reads:
    """Reads of the endpoints of one chain."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints

    async def found(self, path: str, type_: type[T]) -> T:
        """Return the first answer that can be read. Raises Unavailable."""
        reasons = []
        for endpoint in await self.endpoints.usable():
            found = self._read(endpoint, await self._ask(endpoint, path), type_)
            if not isinstance(found, str):
                return found
            reasons.append(found)
        raise Unavailable("; ".join(reasons))

    async def found_or_none(self, path: str, type_: type[T], *, is_it: Callable[[T], bool] = _any) -> T | None:
        """Return the first answer that can be read; None when `quorum` endpoints agree that it is not there.

        What is not `is_it` is an answer to another question: an empty document, say. Raises Unavailable.
        """
        absent, reasons = 0, []
        for endpoint in await self.endpoints.usable():
            answer = await self._ask(endpoint, path)
            if isinstance(answer, Response) and answer.status == 404:
                absent += 1
                if absent >= self.endpoints.quorum:
                    return None
                continue
            found = self._read(endpoint, answer, type_, is_it)
            if not isinstance(found, str):
                return found
            reasons.append(found)
        raise Unavailable("; ".join(reasons) or "only one endpoint says that it is not there, and no other is usable")

    async def agreed(self, path: str, type_: type[T], said: Callable[[T], Hashable]) -> T:
        """Return an answer of which `quorum` endpoints say the same. Raises Unavailable."""
        found = await self._agreed(path, type_, said, 0, _any, may_be_absent=False)
        assert found is not None, "absence was not looked for"
        return found

    async def agreed_or_none(
        self,
        path: str,
        type_: type[T],
        said: Callable[[T], Hashable],
        at_height: int = 0,
        *,
        is_it: Callable[[T], bool] = _any,
    ) -> T | None:
        """Return an answer of which `quorum` endpoints at this height or above say the same; None: it is not there.

        Raises Unavailable, also while others are still below that height.
        """
        return await self._agreed(path, type_, said, at_height, is_it, may_be_absent=True)

    async def values(self, path: str, type_: type[T], value: Callable[[T], int]) -> tuple[int, int]:
        """Return the lowest and the highest that `quorum` endpoints say of what changes with each block.

        Raises Unavailable.
        """
        usable = await self.endpoints.usable()
        wanted = min(self.endpoints.quorum, len(usable))
        values: list[int] = []
        reasons: list[str] = []
        for endpoint in usable:
            found = self._read(endpoint, await self._ask(endpoint, path), type_)
            if isinstance(found, str):
                reasons.append(found)
                continue
            values.append(value(found))
            if len(values) >= wanted:
                break
        if not values:
            raise Unavailable("; ".join(reasons))
        return min(values), max(values)

    async def is_spoken(self, path: str) -> bool:
        """Return whether an endpoint knows this path; False when `quorum` endpoints do not. Raises Unavailable."""
        usable = await self.endpoints.usable()
        wanted = min(self.endpoints.quorum, len(usable))
        unknown = 0
        reasons: list[str] = []
        for endpoint in usable:
            answer = await self._ask(endpoint, path)
            if isinstance(answer, str):
                reasons.append(answer)
            elif answer.status not in (404, 501):
                return True
            else:
                unknown += 1
                if unknown >= wanted:
                    return False
        raise Unavailable("; ".join([*reasons, f"{unknown} endpoints do not know {path}"]))

    async def _agreed(
        self,
        path: str,
        type_: type[T],
        said: Callable[[T], Hashable],
        at_height: int,
        is_it: Callable[[T], bool],
        *,
        may_be_absent: bool,
    ) -> T | None:
        able = len(await self.endpoints.usable())
        reasons: list[str] = []
        votes: dict[Hashable, list[T | None]] = {}
        for endpoint in await self.endpoints.usable(at_height):
            answer = await self._ask(endpoint, path)
            found: T | str | None
            if may_be_absent and isinstance(answer, Response) and answer.status == 404:
                found = None
            else:
                found = self._read(endpoint, answer, type_, is_it)
            if isinstance(found, str):  # it cannot be used now, as it seems
                able -= 1
                reasons.append(found)
                continue
            those = votes.setdefault((None,) if found is None else said(found), [])
            those.append(found)
            if len(those) >= self.endpoints.quorum:
                return found
        if len(votes) == 1:
            (those,) = votes.values()
            if len(those) >= able and those[0] is not None:  # absence is never one endpoint's word
                return those[0]
        count = sum(len(those) for those in votes.values())
        raise Unavailable("; ".join([*reasons, f"{count} endpoints do not agree on {path}"]))

    def _read(
        self, endpoint: Endpoint, answer: Response | str, type_: type[T], is_it: Callable[[T], bool] = _any
    ) -> T | str:
        """Return what the endpoint answers; a text that says why it cannot be used, as another one's perhaps can."""
        if isinstance(answer, str):
            return answer
        try:
            if answer.status != 200:
                raise Unavailable(f"the chain answers {answer.status}: {refusal(answer).message[:200]}")
            found = decoded(answer, type_)
            if not is_it(found):
                raise Unavailable("it answers with something else")
        except Unavailable as error:
            self.endpoints.failed(endpoint, str(error))
            return f"{endpoint.url}: {error}"
        return found

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
