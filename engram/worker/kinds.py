"""Kinds of jobs, which are plugins: what `type` of a job names.

A kind is any object that follows `JobKind`. Two come with the worker, `inference` and `training`, each an HTTP call to
a backend; others are named in `worker.kinds` as `NAME=module:attribute`, where the attribute is called without
arguments and returns the kind.
"""

import importlib
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol, final, runtime_checkable

import msgspec
import trio

from config.model import WorkerSettings
from engram import wire
from engram.http.client import HttpClient, Response
from engram.http.errors import HttpError, Interrupted, NotSent, TooLarge
from engram.worker.errors import JobFailed, OutcomeUnknown
from engram.worker.model import WorkerJob

JOB_HEADER: Final = "Idempotency-Key"
_CONNECT_S: Final = 3.0
_RETRY_S: Final = (0.2, 1.0, 3.0, 5.0)
"""Waits between tries to reach a backend that has not taken the job."""
_TEXT_CHARS: Final = 500
_ANSWER_LOST: Final = (502, 504)
"""Answers of a gateway before the backend, which may have done the job."""

_json: Final = wire.decoder(object)


@runtime_checkable
class JobKind(Protocol):
    """The seam of a job kind."""

    @property
    def repeatable(self) -> bool:
        """Whether a job with the same id may be run again after an unknown outcome, and is done once all the same."""
        ...

    async def run(self, job: WorkerJob) -> Any:
        """Do the job and return its result: JSON, in which bytes are sent as binary attachments.

        It is cancelled when its time is over and when the worker stops. Raises JobFailed and OutcomeUnknown; any other
        exception is a bug, and logged.
        """
        ...


@final
class HttpKind:
    """Jobs that a backend does: the payload is POSTed as JSON, and the answer's JSON is the result.

    A backend that is not reached is tried again for some seconds. One whose answer was lost is asked again only if it
    is `repeatable`: it knows by the Idempotency-Key (the job's id) that it has the job already.
    """

    def __init__(self, http: HttpClient, url: str, *, repeatable: bool, most_s: float, max_bytes: int) -> None:
        self._http = http
        self._url = url
        self._most_s = most_s
        self._max_bytes = max_bytes
        self.repeatable = repeatable

    async def run(self, job: WorkerJob) -> Any:
        """Post the payload; see JobKind."""
        headers = {} if job.id is None else {JOB_HEADER: _header_of(job.id)}
        content = msgspec.json.encode(job.payload)
        for wait_s in (*_RETRY_S, None):
            try:
                answer = await self._http.request(
                    "POST",
                    self._url,
                    content=content,
                    headers={"content-type": "application/json", **headers},
                    connect_s=_CONNECT_S,
                    read_s=self._most_s,
                    total_s=self._most_s,
                    max_bytes=self._max_bytes,
                )
                if answer.status not in _ANSWER_LOST:
                    return _result_of(answer)
                lost = f"Backend's answer was lost: a gateway answered {answer.status} {_text_of(answer)}".rstrip()
                if wait_s is None or not self._may_ask_again(job):
                    raise OutcomeUnknown(lost)
            except NotSent as error:
                if wait_s is None:
                    raise JobFailed(f"Backend not reached: {error}") from error
            except TooLarge as error:
                text = f"Backend's answer has more than {self._max_bytes} bytes"
                if error.status >= 300 and error.status not in _ANSWER_LOST:
                    raise JobFailed(f"Backend answered {error.status}: {text}") from error
                raise OutcomeUnknown(text) from error
            except Interrupted as error:
                if wait_s is None or not self._may_ask_again(job):
                    raise OutcomeUnknown(f"Backend's answer was lost: {error}") from error
            except HttpError as error:
                raise OutcomeUnknown(f"Backend's answer cannot be read: {error}") from error
            await trio.sleep(wait_s)
        raise AssertionError("the last try returns or raises")

    def _may_ask_again(self, job: WorkerJob) -> bool:
        return self.repeatable and job.id is not None


def _header_of(job_id: str) -> str:
    """Return the id as a header carries it: percent-encoded where it is not ASCII."""
    return "".join(each if "!" <= each <= "~" and each != "%" else _percent(each) for each in job_id)


def _percent(character: str) -> str:
    return "".join(f"%{octet:02X}" for octet in character.encode())


def _result_of(answer: Response) -> Any:
    """Return the result. Raises JobFailed for an error answer, OutcomeUnknown for a result that cannot be read."""
    media = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if answer.status >= 300:
        raise JobFailed(f"Backend answered {answer.status}: {_text_of(answer)}")
    if media == "application/json" or media.endswith("+json"):
        try:
            return _json.decode(answer.content) if answer.content else None
        except (msgspec.DecodeError, RecursionError) as error:
            raise OutcomeUnknown(f"Backend's answer is not the JSON that it says: {error}") from error
    if media.startswith("text/"):
        return answer.content.decode("utf-8", "replace")
    return answer.content


def _text_of(answer: Response) -> str:
    return answer.content[: 4 * _TEXT_CHARS].decode("utf-8", "replace")[:_TEXT_CHARS]


def load_kinds(entries: Iterable[str]) -> Mapping[str, JobKind]:
    """Return the kinds of `worker.kinds`. Raises ValueError that names the entry."""
    kinds: dict[str, JobKind] = {}
    for entry in entries:
        name, _, where = entry.partition("=")
        module, _, attribute = where.partition(":")
        if not (name and module and attribute):
            raise ValueError(f"worker.kinds: {entry!r} is not NAME=module:attribute")
        try:
            made = getattr(importlib.import_module(module), attribute)()
        except (ImportError, AttributeError, TypeError) as error:
            raise ValueError(f"worker.kinds: {entry!r} cannot be loaded: {error}") from error
        if not isinstance(made, JobKind):
            raise ValueError(  # noqa: TRY004 -- a wrong setting, not a wrong argument
                f"worker.kinds: {entry!r} makes a {type(made).__name__}, which has no run or repeatable"
            )
        kinds[name] = made
    return kinds


def backend_client(settings: WorkerSettings) -> HttpClient:
    """Return a client for the backends, with a connection for each job that may run; close it after use."""
    return HttpClient(connections_per_origin=settings.concurrency)


def http_kinds(http: HttpClient, settings: WorkerSettings) -> dict[str, JobKind]:
    """Return the kinds whose backend is configured."""
    urls = {"inference": settings.inference_url, "training": settings.training_url}
    return {
        name: HttpKind(
            http,
            url,
            repeatable=name in settings.repeatable,
            most_s=settings.job_s,
            max_bytes=settings.max_result_bytes,
        )
        for name, url in urls.items()
        if url
    }
