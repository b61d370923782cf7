"""Messages: frozen structs that name their reply, and what a handler may say instead of replying."""

from __future__ import annotations

import sys
import types
import typing
from contextlib import suppress
from typing import Any, Final, Generic, Protocol, Self, TypeVar, final

import msgspec

R = TypeVar("R")
MessageT_co = TypeVar("MessageT_co", covariant=True)
ReplyT_co = TypeVar("ReplyT_co", covariant=True)


class Message(msgspec.Struct, Generic[R], frozen=True):
    """A message whose reply is an R. Write `class GetSession(Message[Session], frozen=True)`; with
    `Message[None]` nothing but "it is handled" is replied."""

    def __asks__(self) -> tuple[Self, R]:
        """Never called: ties the class of the message to its reply for type checkers."""
        raise NotImplementedError


class Asks(Protocol[MessageT_co, ReplyT_co]):
    """A message of type MessageT that is replied to with a ReplyT."""

    def __asks__(self) -> tuple[MessageT_co, ReplyT_co]:
        """Never called."""
        ...


class Refuse(Exception):
    """Raised in `handle`: `error` is raised at the caller and the actor goes on. For the refusals that belong to
    the actor's domain; a message without a caller becomes a dead letter."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class Ignore(Exception):
    """Raised in `on_start`: there is nothing to do here. The start counts as done and nothing runs."""


@final
class Later:
    """The class of LATER."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "LATER"


LATER: Final = Later()
"""Returned by `handle` after it took `context.reply_to()`: the reply is given through that."""


def classes_of(annotation: object) -> tuple[type, ...] | None:
    """Return the classes that a type expression stands for; None when they cannot be known at run time."""
    if annotation is None:
        return (type(None),)
    origin = typing.get_origin(annotation)
    if origin is typing.Union or origin is types.UnionType:
        found: list[type] = []
        for part in typing.get_args(annotation):
            classes = classes_of(part)
            if classes is None:
                return None
            found.extend(classes)
        return tuple(found)
    if isinstance(origin, type):
        return (origin,)
    if isinstance(annotation, type) and annotation not in (object, Any):
        return (annotation,)
    return None


_reply_classes: dict[type, tuple[type, ...] | None] = {}


def reply_classes(message_type: type) -> tuple[type, ...] | None:
    """Return the classes that a reply to this message may have; None when any may."""
    try:
        return _reply_classes[message_type]
    except KeyError:
        pass
    found: tuple[type, ...] | None = None
    for base in message_type.__mro__:
        for parent in getattr(base, "__orig_bases__", ()):
            if typing.get_origin(parent) is Message and found is None:
                with suppress(TypeError):
                    found = classes_of(_resolved(typing.get_args(parent)[0], base))
    if found is not None and float in found:
        found = (*found, int)
    _reply_classes[message_type] = found
    return found


def message_classes(actor_type: type) -> tuple[type, ...] | None:
    """Return the classes of message that an actor class takes, from its `Actor[...]` base; None when it does not say.

    Raises TypeError when a name in quotes cannot be found.
    """
    base: Any
    for base in actor_type.__mro__:
        for parent in base.__dict__.get("__orig_bases__", ()):
            origin = typing.get_origin(parent)
            if isinstance(origin, type) and getattr(origin, "__actor_base__", False):
                return classes_of(_resolved(typing.get_args(parent)[0], base))
    return None


def _resolved(annotation: object, named_by: type) -> object:
    """`annotation` with the names in it looked up in the module of the class that it stands at."""
    holder = type("holder", (), {"__annotations__": {"it": annotation}})
    names = vars(sys.modules[named_by.__module__]) if named_by.__module__ in sys.modules else {}
    try:
        return typing.get_type_hints(holder, globalns=dict(names), localns={named_by.__name__: named_by})["it"]
    except NameError as error:
        raise TypeError(
            f"{named_by.__qualname__} names its messages or reply by {annotation!r}, which cannot be found: {error}; "
            "write the class itself, or define it in the module"
        ) from error
