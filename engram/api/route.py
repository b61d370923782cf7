"""An endpoint as a row of a table: everything about it except its handler."""

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
    """The request type of endpoints that read no body."""


class Parameter(msgspec.Struct, frozen=True):
    """A query parameter or header that an endpoint takes."""

    name: str
    where: Where
    description: str = ""


class Response(msgspec.Struct, Generic[A], frozen=True):
    """One answer of an endpoint: its success, an error, or a success of another status."""

    status: int
    """The HTTP status; 0 stands for any other status."""
    description: str
    answer: type[A] | None = None
    """The body's type; None for no body."""
    example: Example | str | None = None
    headers: tuple[str, ...] = ()
    """Headers in addition to those that every answer has."""


class Route(msgspec.Struct, Generic[Q, A], frozen=True):
    """One method of one path, from a request `Q` to an answer `A`."""

    id: str
    """Its unique name on the surface, the document's operationId."""
    method: Method
    path: str
    """`{name}` is one segment, `{name...}` the rest of the path with its slashes."""
    summary: str
    request: type[Q]
    """The type of the JSON body; NoBody where none is read."""
    success: Response[A]
    """The success answer; for a stream, the type of each line or event."""
    others: tuple[Response[Any], ...] = ()
    """The other answers, mostly errors."""
    tag: str = ""
    parameters: tuple[Parameter, ...] = ()
    """Query parameters and headers; the path's parameters are in `path`."""
    request_example: Example | None = None
    body_required: bool = True
    """Whether a body must be sent; if False, no body counts as an empty object."""
    cache: str = ""
    """Cache-Control of the handler's answer; empty for answers that must not be cached."""
    stream: str = ""
    """Content-Type of a stream, which has no length and is not signed; empty: the answer is one JSON document."""
    upload: str = ""
    """Content-Type of a body that the handler reads as it comes (`call.parts`), and may answer before its end; no
    signature can cover it. Empty: the body is read whole, within the surface's bound, before the handler runs."""
    failed: Example = {}
    """Fields of an error's body in addition to the usual ones: the answer's fields, empty."""
    rule_status: int = 400
    """The status when one of the endpoint's own rules is broken: 200 where clients of the original rely on it."""

    callers: tuple[str, ...] = ()
    """Security schemes, one of which must hold; empty if anyone may call."""
    unsigned: str = "Unauthorized."
    """The text of the 401 for an invalid signature."""
    signed_as: str = ""
    """The operation that a signed body names; empty: the signature covers method and path."""
    private: bool = False
    """Whether answers about private data are padded, in size and in time."""

    hot: bool = False
    """Whether requests go straight to the handler, past a framework that the surface may have."""
    probe: bool = False
    """Whether it is answered before rate limits and without a log line, for load balancers."""
    max_values: int = 1_024
    """The maximum number of values in a body, counted by separators: decoding thousands would block the loop."""

    @property
    def takes_body(self) -> bool:
        """Whether a body is read."""
        return self.request is not NoBody

    @property
    def path_parameters(self) -> tuple[str, ...]:
        """The names of the path's parameters, in order."""
        return tuple(_PARAMETER.findall(self.path))

    def url(self, **names: str) -> str:
        """Return the path of a request, with its parameters percent-encoded."""
        return _PARAMETER.sub(lambda found: quote(names[found[1]], safe=""), self.path)

    @property
    def plain_path(self) -> str:
        """The path as OpenAPI spells it."""
        return self.path.replace("...}", "}")
