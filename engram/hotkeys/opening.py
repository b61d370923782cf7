"""What an encrypted key file holds, found in a process of its own.

Decryption takes 2.4 s of CPU and holds the interpreter lock throughout (measured, bittensor-core 0.1.5): in a thread it
would stop the loop. `python -P -m engram.hotkeys.opening` reads a request on standard input.
"""

import os
import sys
from pathlib import Path
from typing import Final

import msgspec
import trio

from engram import children, crash_reports, wire
from engram.children import Program
from engram.hotkeys.errors import HotkeyError, WalletFileError
from engram.hotkeys.keypair import Keypair
from engram.hotkeys.ss58 import PublicKey
from engram.hotkeys.wallet import read_private_hotkey_file

TIMEOUT_S: Final = 25.0


class _Request(msgspec.Struct, frozen=True):
    path: str
    password: str
    private: bool = False


class _Answer(msgspec.Struct, frozen=True):
    key: bytes = b""
    error: str = ""


async def public_key_of(path: Path, password: str) -> PublicKey:
    """Return the file's public key. Raises WalletFileError, also for a wrong password or after TIMEOUT_S."""
    return await _key_of(_Request(str(path), password))


async def keypair_of(path: Path, password: str) -> Keypair:
    """Return the file's key pair. Raises WalletFileError, also for a wrong password or after TIMEOUT_S."""
    return Keypair(await _key_of(_Request(str(path), password, private=True)))


async def _key_of(request: _Request) -> bytes:
    path = request.path
    # The password is in no argument and no variable.
    with trio.move_on_after(TIMEOUT_S):
        ran = await trio.run_process(
            children.command(Program.WALLET_OPENER),
            stdin=msgspec.json.encode(request),
            capture_stdout=True,
            env=children.environment(os.environ),
            check=False,
        )
        try:
            answer = wire.decode(ran.stdout, _Answer)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise WalletFileError(f"the key file {path} could not be opened: exit status {ran.returncode}") from None
        if answer.error:
            raise WalletFileError(answer.error)
        return answer.key
    raise WalletFileError(f"the key file {path} could not be opened in {TIMEOUT_S:g} s")


def answer_to(request: bytes) -> bytes:
    """Return the child's answer to a request on its standard input."""
    opening = wire.decode(request, _Request)
    try:
        keypair = read_private_hotkey_file(opening.path, opening.password)
        return msgspec.json.encode(_Answer(keypair.private_key() if opening.private else keypair.public_key))
    except HotkeyError as error:
        return msgspec.json.encode(_Answer(error=str(error)))


if __name__ == "__main__":
    crash_reports.enable()
    sys.stdout.buffer.write(answer_to(sys.stdin.buffer.read()))
