"""KeyboardInterrupt and SystemExit: where a Ctrl-C may be raised, and how one is found in what a child raised.

trio raises KeyboardInterrupt at any bytecode of code that is not protected from it; elsewhere it waits until the main
task is at a checkpoint. The code of this package is protected, so that no wake-up, report or timer is cut in two. The
code of its users is not, so that Ctrl-C ends an endless loop of theirs, too.
"""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar, TypeVarTuple

from trio.lowlevel import disable_ki_protection, enable_ki_protection

_INTERRUPTS: Final = (KeyboardInterrupt, SystemExit)  # the union of them would be made again at each use

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def interrupt_in(error: BaseException, *, replaced: bool = False) -> KeyboardInterrupt | SystemExit | None:
    """Return the first interrupt that `error` is or holds as a group; None when there is none.

    With `replaced` also a KeyboardInterrupt during whose handling `error` was raised (a `finally` that raises). A
    SystemExit that was turned into another error is not looked for: that is how a parser's errors are translated.
    """
    if isinstance(error, _INTERRUPTS):
        return error
    grouped = isinstance(error, BaseExceptionGroup)
    if not grouped and (not replaced or (error.__cause__ is None and error.__context__ is None)):
        return None
    exits: list[SystemExit] = []
    seen: set[int] = set()
    todo: list[tuple[BaseException, bool]] = [(error, False)]
    while todo:
        one, by_chain = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, KeyboardInterrupt):
            return one
        if isinstance(one, SystemExit) and not by_chain:
            exits.append(one)
        if isinstance(one, BaseExceptionGroup):
            todo.extend((part, by_chain) for part in one.exceptions)
        if replaced:
            todo.extend((earlier, True) for earlier in (one.__cause__, one.__context__) if earlier is not None)
    return exits[0] if exits else None


def protect(namespace: Mapping[str, object]) -> None:
    """Keep KeyboardInterrupt out of every function of a module, given its `globals()`, and out of what they call."""
    module = namespace["__name__"]
    for found in tuple(namespace.values()):
        if getattr(found, "__module__", None) != module:
            continue
        if isinstance(found, types.FunctionType):
            _protect(found.__code__)
        elif isinstance(found, type):
            for member in vars(found).values():
                inner = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
                if isinstance(inner, types.FunctionType) and inner.__module__ == module:
                    _protect(inner.__code__)


class _Marked:
    """All that trio's decorators look at: the mark is on the code, which every function made from it shares."""

    def __init__(self, code: types.CodeType) -> None:
        self.__code__ = code


def _protect(code: types.CodeType) -> None:
    enable_ki_protection(_Marked(code))
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            _protect(inner)


def let_in(hook: object) -> None:
    """Let KeyboardInterrupt be raised in `hook`, a function of users that this package calls on its hot path."""
    if isinstance(hook, types.FunctionType):
        disable_ki_protection(hook)


@disable_ki_protection
def call_unprotected(run: Callable[[], T]) -> T:
    """Call a function of users: KeyboardInterrupt may be raised in it."""
    return run()


@disable_ki_protection
async def run_unprotected(run: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Run an async function of users: KeyboardInterrupt may be raised in it."""
    return await run(*args)
