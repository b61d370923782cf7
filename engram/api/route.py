"""An endpoint as a row: all that is said about it anywhere, but for the handler."""

import re
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar
from urllib.parse import quote

import msgspec

A = TypeVar("A")
Q = TypeVar("Q")

Example: TypeAlias = dict[str, object]
Method: TypeAlias = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Where: TypeAlias = Literal["query", "header"]

_PARAMETER: Final = re.compile(r"\{(\w+)(?:\.\.\.)?\}")


class NoBody(msgspec.Struct, frozen=True):
    """What endpoints take that look at no body."""


class Parameter(msgspec.Struct, frozen=True):
    """A query parameter or header that an endpoint takes."""

    name: str
    where: Where
    description: str = ""


class Response(msgspec.Struct, Generic[A], frozen=True):
    """One answer of an endpoint: its success, an error, or a success of another status."""

    status: int
    """0: any that is not named."""
    description: str
    answer: type[A] | None = None
    """None: no body."""
    example: Example | str | None = None
    headers: tuple[str, ...] = ()
    """Besides those that every answer has."""


class Route(msgspec.Struct, Generic[Q, A], frozen=True):
    """One method of one path, from a request `Q` to an answer `A`."""

    id: str
    """Its name among all of the surface: the document's operationId."""
    method: Method
    path: str
    """`{name}` is one segment, `{name...}` the rest of the path with its slashes."""
    summary: str
    request: type[Q]
    """The JSON body; NoBody where none is looked at."""
    success: Response[A]
    """Of each line or event where it is a stream."""
    others: tuple[Response[Any], ...] = ()
    """Errors first of all."""
    tag: str = ""
    parameters: tuple[Parameter, ...] = ()
    """Of query and headers; those of the path are in `path`."""
    request_example: Example | None = None
    body_required: bool = True
    """False: no body stands for an empty object."""
    cache: str = ""
    """Cache-Control of what the handler gives back; empty: no cache keeps it."""
    stream: str = ""
    """Content-Type of a stream, which has no length and is not signed; empty: the answer is one JSON document."""
    failed: Example = {}
    """What an error's body has besides its own fields: the answer's fields, empty."""
    rule_status: int = 400
    """Of an error that breaks one of the endpoint's own rules: 200 where clients of the original rely on it."""

    callers: tuple[str, ...] = ()
    """Security schemes one of which must hold; empty: anyone may call."""
    unsigned: str = "Unauthorized."
    """The text of a 401 for a signature that does not hold."""
    signed_as: str = ""
    """The operation that a signed body names; empty: the signature covers method and path."""
    private: bool = False
    """Whether an answer about something private is padded, in size and in time."""

    hot: bool = False
    """Whether requests go past Quart, straight to the handler."""
    probe: bool = False
    """Whether it is answered before limits and log, as load balancers want it."""
    max_values: int = 1_024
    """Of a body: values, counted by their separators. Thousands would hold up the loop."""

    @property
    def takes_body(self) -> bool:
        """Whether a body is looked at."""
        return self.request is not NoBody

    @property
    def path_parameters(self) -> tuple[str, ...]:
        """Names in the order of the path."""
        return tuple(_PARAMETER.findall(self.path))

    def url(self, **names: str) -> str:
        """Return the path of one request, its names quoted."""
        return _PARAMETER.sub(lambda found: quote(names[found[1]], safe=""), self.path)

    @property
    def plain_path(self) -> str:
        """The path as OpenAPI spells it."""
        return self.path.replace("...}", "}")
