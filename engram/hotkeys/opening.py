"""The public key of an encrypted key file, found in a process of its own.

Decryption takes 2.4 s of CPU and holds the interpreter lock throughout (measured, bittensor-core 0.1.5): in a thread it
would stop the loop. `python -P -m engram.hotkeys.opening` reads a request on standard input.
"""

import os
import sys
from pathlib import Path
from typing import Final

import msgspec
import trio

from engram import crash_reports, wire
from engram.hotkeys.errors import HotkeyError, WalletFileError
from engram.hotkeys.ss58 import PublicKey
from engram.hotkeys.wallet import read_private_hotkey_file

TIMEOUT_S: Final = 25.0


class _Request(msgspec.Struct, frozen=True):
    path: str
    password: str


class _Answer(msgspec.Struct, frozen=True):
    public_key: bytes = b""
    error: str = ""


async def public_key_of(path: Path, password: str) -> PublicKey:
    """Return the file's public key. Raises WalletFileError, also for a wrong password or after TIMEOUT_S."""
    # The child finds this package where this process found it; the password is in no argument and no variable.
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    with trio.move_on_after(TIMEOUT_S):
        ran = await trio.run_process(
            [sys.executable, "-P", "-m", "engram.hotkeys.opening"],
            stdin=msgspec.json.encode(_Request(str(path), password)),
            capture_stdout=True,
            env=environ,
            check=False,
        )
        try:
            answer = wire.decode(ran.stdout, _Answer)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise WalletFileError(f"the key file {path} could not be opened: exit status {ran.returncode}") from None
        if answer.error:
            raise WalletFileError(answer.error)
        return answer.public_key
    raise WalletFileError(f"the key file {path} could not be opened in {TIMEOUT_S:g} s")


def answer_to(request: bytes) -> bytes:
    """Return the child's answer to a request on its standard input."""
    opening = wire.decode(request, _Request)
    try:
        return msgspec.json.encode(_Answer(read_private_hotkey_file(opening.path, opening.password).public_key))
    except HotkeyError as error:
        return msgspec.json.encode(_Answer(error=str(error)))


if __name__ == "__main__":
    crash_reports.enable()
    sys.stdout.buffer.write(answer_to(sys.stdin.buffer.read()))
