"""The endpoints that the proxy answers itself, and the two routes that it has without any configuration: one row each.

The proxy has its own dispatch (bodies are passed on while they arrive), which is held against these rows by a test.
"""

from typing import Annotated, Any, Final, TypeAlias, cast

import msgspec
from msgspec import Meta

from engram.api.route import NoBody, Parameter, Response, Route

EPISTULA: Final = ("epistula",)
SECRET: Final = ("internal secret",)


Name: TypeAlias = Annotated[str, Meta(max_length=128)]
Names: TypeAlias = Annotated[list[Name], Meta(max_length=256)]
Advertised: TypeAlias = Annotated[dict[Name, bool | Names], Meta(max_length=256)]
"""Booleans by name, or lists of names by kind."""


class Healthy(msgspec.Struct, frozen=True):
    """The answer of GET /."""

    status: str
    service: str


class Checked(msgspec.Struct, frozen=True):
    """The answer of GET /check/{identifier}."""

    status: str
    identifier: str


class Queued(msgspec.Struct, frozen=True):
    """The answer to a request that became a job."""

    status: str
    job_id: str
    proxy_timeout_seconds: float


class Detail(msgspec.Struct, frozen=True):
    """The body of every error: `detail` as the original has it, alone where its clients compare the whole body."""

    detail: str
    error: str | msgspec.UnsetType = msgspec.UNSET
    code: str | msgspec.UnsetType = msgspec.UNSET
    request_id: str | msgspec.UnsetType = msgspec.UNSET


def _error(status: int, description: str) -> Response[Detail]:
    headers = ("Retry-After",) if status in (429, 503) else ()
    return Response(status, description, Detail, headers=headers)


_BAD: Final = _error(400, "The request cannot be read.")
_UNSIGNED: Final = _error(401, "No valid signature, or one that was used before.")
_REFUSED: Final = _error(403, "The caller is not authorized.")
_MISSING: Final = _error(404, "There is no such thing.")
_LATE: Final = _error(408, "The body did not arrive in time.")
_TOO_LARGE: Final = _error(413, "The body is too large.")
_TOO_MANY: Final = _error(429, "Too many requests, or too many in progress.")
_UNREACHABLE: Final = _error(502, "The backend cannot be reached, or gave no valid answer.")
_BUSY: Final = _error(503, "Not now; come back after Retry-After.")
_SILENT: Final = _error(504, "The backend did not answer in time.")
_PROVEN: Final = (_BAD, _UNSIGNED, _REFUSED, _TOO_LARGE, _TOO_MANY, _BUSY)
_PASSED_ON: Final = (*_PROVEN, _LATE, _UNREACHABLE, _SILENT, Response(0, "Whatever the backend answers.", object))
_OPEN: Final = (_TOO_MANY, _BUSY)

ROOT: Final = Route("root", "GET", "/", "The process answers", NoBody, Response(200, "It does.", Healthy), _OPEN)
STATUS: Final = Route(
    "status", "GET", "/status", "Readiness of each component", NoBody, Response(200, "The status.", object), _OPEN
)
CHECK: Final = Route(
    "check",
    "GET",
    "/check/{identifier}",
    "Whether the proxy stands for this hotkey",
    NoBody,
    Response(200, "It does.", Checked),
    (_MISSING, *_OPEN),
)
CAPACITY: Final = Route(
    "capacity",
    "GET",
    "/capacity",
    "What the miner serves",
    NoBody,
    Response(200, "Lists by kind, or booleans by name.", object),
    _PROVEN,
    callers=EPISTULA,
)
UPDATE_CAPACITY: Final = Route(
    "update_capacity",
    "POST",
    "/capacity",
    "Replace what is advertised",
    cast("type[dict[str, Any]]", Advertised),  # checkers know of Annotated only in annotations
    Response(200, "What is advertised now.", object),
    (_BAD, _UNSIGNED, _REFUSED, _TOO_LARGE, _TOO_MANY, _error(500, "No internal secret is configured."), _BUSY),
    parameters=(Parameter("X-Internal-Secret", "header", "The miner's internal secret."),),
    callers=SECRET,
)
JOB: Final = Route(
    "job",
    "GET",
    "/jobs/{job_id}",
    "The result of a job, or its state; for the key that posted it",
    NoBody,
    Response(200, "The backend's answer, or the state of the job (X-Job-Status).", object),
    (Response(202, "It is still running.", Queued, headers=("Retry-After",)), _MISSING, *_PASSED_ON),
    callers=EPISTULA,
)
TRAIN: Final = Route(
    "train",
    "POST",
    "/train",
    "Passed on to the training server",
    object,
    Response(200, "The backend's answer.", object),
    _PASSED_ON,
    callers=EPISTULA,
    body_required=False,
)
INFERENCE: Final = Route(
    "inference",
    "POST",
    "/inference",
    "Passed on to the inference server",
    object,
    Response(200, "The backend's answer.", object),
    (Response(202, "It became a job, where the route says so.", Queued, headers=("Location",)), *_PASSED_ON),
    callers=EPISTULA,
    body_required=False,
)

ROUTES: Final = (ROOT, STATUS, CHECK, CAPACITY, UPDATE_CAPACITY, JOB, TRAIN, INFERENCE)
OWN: Final = (ROOT, STATUS, CHECK, CAPACITY, UPDATE_CAPACITY, JOB)
"""The rows that the proxy answers itself."""
