"""Reading the GPUs without ever holding the loop."""

import math
from collections.abc import Callable
from typing import Final, final

import msgspec
import trio

from engram.gpu import nvml
from engram.gpu.model import GpuInfo
from engram.gpu.torch_memory import torch_memory

DEADLINE_S: Final = 5.0
FRESH_S: Final = 5.0


@final
class RunningLook:
    """A look that is under way in a thread."""

    def __init__(self) -> None:
        self.began = trio.current_time()
        self.ended = trio.Event()
        self.found: GpuInfo | None = None


class GpuReader:
    """The machine's GPUs, at most `fresh_s` seconds old.

    NVML may block for ever inside the driver, where nothing can end it. The look happens in one thread, and goes on
    when its caller goes away: the next one waits for it. One that has not come back by the deadline is left behind, and
    until it does come back no other is started: the answer is `gpu_count: 0` with the reason.
    """

    def __init__(
        self,
        *,
        look: Callable[[], GpuInfo] = nvml.look,
        deadline_s: float = DEADLINE_S,
        fresh_s: float = FRESH_S,
    ) -> None:
        self._look = look
        self._deadline_s = deadline_s
        self._fresh_s = fresh_s
        self._one_at_a_time = trio.Lock()
        self._threads = trio.CapacityLimiter(1)
        self._running: RunningLook | None = None
        self._last: GpuInfo | None = None
        self._looked_at = -math.inf

    async def read(self) -> GpuInfo:
        """Return the GPUs; callers that come at once share one look. Never raises."""
        async with self._one_at_a_time:
            if self._last is None or trio.current_time() - self._looked_at > self._fresh_s:
                self._last = await self._look_now()
                self._looked_at = trio.current_time()
            return self._last

    async def _look_now(self) -> GpuInfo:
        look = self._running
        if look is None:
            look = self._running = RunningLook()
            trio.lowlevel.spawn_system_task(self._run, look)
        with trio.move_on_at(look.began + self._deadline_s):
            await look.ended.wait()
        return look.found or _silent(trio.current_time() - look.began)

    async def _run(self, look: RunningLook) -> None:
        try:
            look.found = await trio.to_thread.run_sync(self._look_at_all, abandon_on_cancel=True, limiter=self._threads)
        except Exception as error:  # noqa: BLE001 - a driver's library may fail in ways that are not NVML's own
            look.found = GpuInfo(gpu_count=0, reason=f"the GPUs could not be read: {error!r}")
        finally:
            self._running = None
            look.ended.set()

    def _look_at_all(self) -> GpuInfo:
        return msgspec.structs.replace(self._look(), torch=torch_memory())


def _silent(seconds: float) -> GpuInfo:
    return GpuInfo(
        gpu_count=0, reason=f"NVML has not answered for {seconds:.0f} s; is the driver or a GPU hanging? See `dmesg`."
    )
