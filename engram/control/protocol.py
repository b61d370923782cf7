"""The control socket's wire: one JSON object a line each way, tagged by the command's name.

    -> {"command":"stop_session","session_id":"…"}
    <- {"ok":{…}}            or            <- {"code":"not_found","error":"there is no session …"}

A connection may carry several commands, one after the other. The socket lies in the data folder with mode 0600 and
answers only its own user (or root); what may open it may do everything.
"""

from typing import Final, Generic, TypeVar, get_args

import msgspec

from engram import wire
from engram.control.errors import CommandRefused, ProtocolError

SOCKET_FILE: Final = "control.sock"
MAX_COMMAND_BYTES: Final = 65_536
MAX_ANSWER_BYTES: Final = 16_777_216

R = TypeVar("R")


class Command(msgspec.Struct, Generic[R], frozen=True, kw_only=True, tag_field="command"):
    """What an operator asks of the running process; `R` is the type of the answer."""


def reply_type(command: type[Command[R]]) -> type[R]:
    """Return the type of the answer to a command, from its declaration."""
    (base,) = command.__orig_bases__  # type: ignore[attr-defined]  # set by typing on every subclass of a Generic
    reply: type[R] = get_args(base)[0]
    return reply


class _Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    ok: msgspec.Raw = msgspec.Raw(b"")
    code: str = ""
    error: str = ""


def encode_command(command: Command[R]) -> bytes:
    """Return the command as one line. Raises ProtocolError above MAX_COMMAND_BYTES."""
    line = msgspec.json.encode(command) + b"\n"
    if len(line) > MAX_COMMAND_BYTES:
        raise ProtocolError(f"the command has {len(line)} bytes, at most {MAX_COMMAND_BYTES} are taken")
    return line


def encode_success(result: object) -> bytes:
    """Return the answer line of a command that was carried out."""
    return msgspec.json.encode(_Outcome(ok=msgspec.Raw(msgspec.json.encode(result)))) + b"\n"


def encode_refusal(code: str, message: str) -> bytes:
    """Return the answer line of a command that was refused."""
    return msgspec.json.encode(_Outcome(code=code, error=message)) + b"\n"


def decode_answer(line: bytes, reply: type[R]) -> R:
    """Return the result in an answer line. Raises Refused, or ProtocolError when it is no answer of this version."""
    try:
        outcome = wire.decode(line, _Outcome)
        if outcome.code:
            raise CommandRefused(outcome.code, outcome.error)
        return wire.decode(outcome.ok, reply)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"the running process answered in another form ({error}); is it another version?") from None
