"""What a worker says of itself when it has connected: the event `authenticate`."""

from typing import Final, final

import msgspec

from engram.clock import Clock
from engram.hotkeys import Keypair

AUTHENTICATE: Final = "authenticate"


class Introduction(msgspec.Struct, frozen=True):
    """The argument of `authenticate`, in the order in which its fields are sent."""

    hotkey: str
    timestamp: str
    """Unix time in nanoseconds."""
    signature: str
    """Hex, without 0x, over `auth:{hotkey}:{timestamp}`."""
    gpu_info: object


@final
class Introducer:
    """Signs introductions; no two have the same timestamp, so that none is taken for a replay of another."""

    def __init__(self, keypair: Keypair, clock: Clock) -> None:
        self._keypair = keypair
        self._clock = clock
        self._last = 0

    @property
    def hotkey(self) -> str:
        """The worker's address."""
        return self._keypair.ss58

    def introduction(self, gpu_info: object) -> dict[str, object]:
        """Return a new one."""
        self._last = max(self._last + 1, int(self._clock.now() * 1_000_000_000))
        timestamp = str(self._last)
        message = f"auth:{self.hotkey}:{timestamp}"
        signature = self._keypair.sign(message.encode()).hex()
        signed = Introduction(self.hotkey, timestamp, signature, gpu_info)
        return {name: getattr(signed, name) for name in signed.__struct_fields__}
