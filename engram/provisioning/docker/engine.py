"""The calls of the Engine API that are made here, over the project's outbound client.

A call that changes something returns what the engine said against it, or nothing; it is no decision. Engines answer
409 or 500 to what was done as well as to what was not, and differ from one another, so that every decision is made by
looking (`inspect`). Each call has a connection of its own: one that an engine closed while it was idle would leave an
outcome unknown for nothing.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from math import ceil, inf
from pathlib import Path
from typing import Final, TypeVar, final
from urllib.parse import quote, urlencode

import msgspec
import trio

from engram.http.client import HttpClient, Response
from engram.http.errors import BadAnswer, HttpError, NotSent
from engram.provisioning.docker import frames, lines, versions
from engram.provisioning.docker.engine_model import (
    About,
    Container,
    EngineVolume,
    Event,
    Listed,
    Progress,
    Said,
    Volumes,
)
from engram.provisioning.errors import Unavailable, Unknown

T = TypeVar("T")

READ_S: Final = 10.0
CHANGE_S: Final = 60.0
"""A start on a machine that swaps takes long."""
STOP_SLACK_S: Final = 10.0
EVENTS_S: Final = 300.0
"""A stream of events that has gone silent is noticed after this: it is opened again, and all containers are listed."""
LOAD_S: Final = 300.0
"""Podman unpacks 200 MB in a minute."""
LOADED_BYTES: Final = 1 << 20
MOST_BYTES: Final = 8_000_000
MOST_LOG_BYTES: Final = 200_000
MOST_ORDERS_BYTES: Final = 262_144


@final
class Engine:
    """One engine. Raises Unavailable where nothing was changed, Unknown where the outcome is not known."""

    def __init__(self, http: HttpClient, url: str) -> None:
        """Take a client whose connections go to the engine, and the URL without a path."""
        self._http = http
        self._url = url
        self._prefix: str | None = None
        self.is_podman = False
        """What the last ping said."""

    async def ping(self) -> None:
        """See that the engine answers, and agree on a version with it."""
        answer = await self._read("/_ping", versioned=False)
        if answer.status != 200:
            raise Unavailable(f"the engine answered /_ping with {_refusal(answer)}")
        self._prefix = versions.spoken(answer.headers.get("api-version", ""))
        self.is_podman = "libpod-api-version" in answer.headers

    async def about(self) -> About:
        """Return what the engine says of itself."""
        return self._decoded(await self._read("/info"), About)

    async def has_image(self, name: str) -> bool:
        """Return whether the engine has the image."""
        answer = await self._read(f"/images/{quote(name, safe='/:@')}/json")
        return self._is_there(answer)

    @asynccontextmanager
    async def pull(self, name: str) -> AsyncIterator[AsyncIterator[Progress]]:
        """Pull an image; yields the lines of its progress. A failure is a line with an error."""
        names_one = "@" in name or ":" in name.rpartition("/")[2]
        query = urlencode({"fromImage": name if names_one else f"{name}:latest"})
        async with self._streamed("POST", f"/images/create?{query}", Progress, idle_s=120.0, total_s=inf) as found:
            yield found

    async def load(self, bundle: Path) -> None:
        """Load the images of a tar file, as `docker load` does. Raises OSError."""
        async with await trio.open_file(bundle, "rb") as file:

            async def parts() -> AsyncGenerator[bytes, None]:
                while part := await file.read(LOADED_BYTES):
                    yield part

            url, length = await self._path("/images/load"), bundle.stat().st_size
            try:
                async with (
                    aclosing(parts()) as body,
                    self._http.stream(
                        "POST",
                        url,
                        headers={"Content-Type": "application/x-tar"},
                        body=body,
                        length=length,
                        answer_s=LOAD_S,
                        idle_s=LOAD_S,
                        fresh=True,
                    ) as answer,
                ):
                    said = b"".join([part async for part in answer])
            except HttpError as error:
                raise Unavailable(f"the engine: {error}") from error
            if answer.status >= 400:
                raise Unavailable(f"the engine: {_refusal(Response(answer.status, {}, said))}")

    async def create(self, name: str, body: object) -> str:
        """Create a container."""
        return await self._change("POST", f"/containers/create?{urlencode({'name': name})}", json=body)

    async def start(self, name: str) -> str:
        """Start a container."""
        return await self._change("POST", _container(name, "/start"))

    async def stop(self, name: str, grace_s: float) -> str:
        """Send TERM, and KILL when `grace_s` (rounded up to a whole second) have passed."""
        grace = ceil(grace_s)
        return await self._change("POST", _container(name, f"/stop?t={grace}"), within_s=grace + STOP_SLACK_S)

    async def kill(self, name: str) -> str:
        """Send KILL."""
        return await self._change("POST", _container(name, "/kill"))

    async def unpause(self, name: str) -> str:
        """Let a paused container go on: Podman stops none that is paused."""
        return await self._change("POST", _container(name, "/unpause"))

    async def remove(self, name: str) -> str:
        """Remove a container that does not run, and the volumes that have no name."""
        return await self._change("DELETE", _container(name, "?force=1&v=1"))

    async def put(self, name: str, folder: str, archive: bytes) -> str:
        """Unpack a tar archive into a folder of a container, which need not run."""
        path = _container(name, f"/archive?{urlencode({'path': folder})}")
        return await self._change("PUT", path, content=archive, media_type="application/x-tar")

    async def get(self, name: str, path: str) -> bytes | None:
        """Return a tar archive with a file of a container; None when one of them is not there."""
        query = urlencode({"path": path})
        answer = await self._read(_container(name, f"/archive?{query}"), max_bytes=MOST_ORDERS_BYTES)
        return answer.content if self._is_there(answer) else None

    async def inspect(self, name: str) -> Container | None:
        """Return the container, None when there is none."""
        answer = await self._read(_container(name, "/json"))
        return self._decoded(answer, Container) if self._is_there(answer) else None

    async def containers(self, label: str) -> list[Listed]:
        """Return every container with this label (`name=value`), whatever its state."""
        query = urlencode({"all": "1", "filters": _filters(label=[label])})
        return self._decoded(await self._read(f"/containers/json?{query}"), list[Listed])

    async def last_words(self, name: str, lines: int = 8) -> str:
        """Return the end of what the container wrote; empty when it is not there."""
        query = urlencode({"stdout": "1", "stderr": "1", "tail": str(lines)})
        answer = await self._read(_container(name, f"/logs?{query}"), max_bytes=MOST_LOG_BYTES)
        return frames.text(answer.content).strip() if self._is_there(answer) else ""

    @asynccontextmanager
    async def events(self, label: str) -> AsyncIterator[AsyncIterator[Event]]:
        """Listen to what happens to containers with this label, for EVENTS_S at most.

        Only type and label are filtered by the engine: Podman finds no event when an action is named as well.
        """
        query = urlencode({"filters": _filters(type=["container"], label=[label])})
        async with self._streamed("GET", f"/events?{query}", Event, idle_s=inf, total_s=EVENTS_S) as found:
            yield found

    async def create_volume(self, name: str, labels: Mapping[str, str], options: Mapping[str, str]) -> str:
        """Create a volume; one that has this name already is left as it is, and nothing is said against it."""
        body = {"Name": name, "Driver": "local", "Labels": labels, "DriverOpts": options}
        return await self._change("POST", "/volumes/create", json=body)

    async def volume(self, name: str) -> EngineVolume | None:
        """Return the volume, None when there is none."""
        answer = await self._read(f"/volumes/{quote(name, safe='')}")
        return self._decoded(answer, EngineVolume) if self._is_there(answer) else None

    async def volumes(self, label: str) -> list[EngineVolume]:
        """Return every volume with this label."""
        answer = await self._read(f"/volumes?{urlencode({'filters': _filters(label=[label])})}")
        return self._decoded(answer, Volumes).volumes or []

    async def remove_volume(self, name: str) -> str:
        """Remove a volume that no container uses."""
        return await self._change("DELETE", f"/volumes/{quote(name, safe='')}")

    async def _path(self, path: str) -> str:
        if self._prefix is None:
            await self.ping()
        return f"{self._url}{self._prefix}{path}"

    async def _read(self, path: str, *, versioned: bool = True, max_bytes: int = MOST_BYTES) -> Response:
        url = await self._path(path) if versioned else f"{self._url}{path}"
        try:
            return await self._http.request("GET", url, read_s=READ_S, total_s=READ_S, max_bytes=max_bytes, fresh=True)
        except HttpError as error:
            raise Unavailable(f"the engine: {error}") from error

    async def _change(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        content: bytes | None = None,
        media_type: str = "",
        within_s: float = CHANGE_S,
    ) -> str:
        url = await self._path(path)
        headers = {"Content-Type": media_type} if media_type else None
        try:
            answer = await self._http.request(
                method,
                url,
                json=json,
                content=content,
                headers=headers,
                read_s=within_s,
                total_s=within_s,
                max_bytes=MOST_BYTES,
                fresh=True,
            )
        except NotSent as error:
            raise Unavailable(f"the engine: {error}") from error
        except HttpError as error:
            raise Unknown(f"the engine: {error}") from error
        return "" if answer.status < 400 else _refusal(answer)

    @asynccontextmanager
    async def _streamed(
        self, method: str, path: str, type_: type[T], *, idle_s: float, total_s: float
    ) -> AsyncIterator[AsyncIterator[T]]:
        """Yield the JSON documents of an answer as they come."""
        url = await self._path(path)
        try:
            async with self._http.stream(
                method,
                url,
                answer_s=READ_S if method == "GET" else CHANGE_S,
                idle_s=idle_s,
                total_s=total_s,
                fresh=True,
            ) as answer:
                if answer.status >= 400:
                    content = b"".join([part async for part in answer])
                    raise Unavailable(f"the engine: {_refusal(Response(answer.status, {}, content[:MOST_BYTES]))}")
                async with aclosing(lines.documents(answer, type_)) as found:
                    yield found
        except HttpError as error:
            raise Unavailable(f"the engine: {error}") from error

    def _is_there(self, answer: Response) -> bool:
        if answer.status == 404:
            return False
        if answer.status >= 400:
            raise Unavailable(f"the engine: {_refusal(answer)}")
        return True

    def _decoded(self, answer: Response, type_: type[T]) -> T:
        if answer.status >= 400:
            raise Unavailable(f"the engine: {_refusal(answer)}")
        try:
            return answer.decode(type_)
        except BadAnswer as error:
            raise Unavailable(f"the engine: {error}") from error


def _container(name: str, rest: str) -> str:
    return f"/containers/{quote(name, safe='')}{rest}"


def _filters(**of: list[str]) -> str:
    return msgspec.json.encode(of).decode()


def _refusal(answer: Response) -> str:
    try:
        said = answer.decode(Said)
    except BadAnswer:
        return f"{answer.status} {answer.content[:200].decode('utf-8', 'replace')}".strip()
    return f"{answer.status} {said.message or said.cause}".strip()
