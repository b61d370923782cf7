"""Reads the facilitator's /supported at start and every `interval_s`."""

from collections.abc import Callable
from typing import Final, final

import structlog
import trio

from actors import Context
from engram.http.client import HttpClient, HttpError
from engram.payments.errors import MalformedPayment
from engram.payments.networks import Network
from engram.payments.supported import FacilitatorStatus, Kind, Supported, read_supported
from engram.payments.x402 import strict_json

MAX_ANSWER_BYTES: Final = 262_144
TIMEOUT_S: Final = 3.0
RETRY_MIN_S: Final = 1.0

_log = structlog.get_logger("engram.payments")


@final
class SupportedPoller:
    """Keeps FacilitatorStatus.supported fresh."""

    def __init__(
        self,
        http: HttpClient,
        base_url: Callable[[], str],
        network: Network,
        status: FacilitatorStatus,
        interval_s: float,
    ) -> None:
        self._http = http
        self._base_url = base_url
        self._network = network
        self._status = status
        self._interval_s = interval_s

    async def run(self, context: Context) -> None:
        """Run the job; it is ready once the facilitator was asked for the first time, answered or not."""
        failures = 0 if await self.read() else 1
        context.ready()
        while True:
            pause_s = RETRY_MIN_S * 2.0 ** min(failures - 1, 10) if failures else self._interval_s
            await trio.sleep(min(self._interval_s, pause_s))
            failures = 0 if await self.read() else failures + 1

    async def read(self) -> bool:
        """Ask once; False when there was no answer that can be read."""
        try:
            answer = await self._http.request(
                "GET",
                f"{self._base_url().rstrip('/')}/supported",
                connect_s=TIMEOUT_S,
                read_s=TIMEOUT_S,
                total_s=TIMEOUT_S,
                max_bytes=MAX_ANSWER_BYTES,
            )
            found = read_supported(strict_json(answer.content), self._network) if answer.status == 200 else None
        except (HttpError, MalformedPayment) as error:
            _log.warning("supported_not_read", cause=type(error).__name__)
            return False
        if found is None:
            _log.warning("supported_not_read", cause=f"http_{answer.status}")
            return False
        if found != self._status.supported:
            self._changed(found)
        return True

    def _changed(self, found: Supported) -> None:
        self._status.supported = found
        match found.kind:
            case None:
                _log.error("facilitator_does_not_settle_here", network=self._network.caip2)
            case Kind(minimum, method):
                _log.info("facilitator_settles", network=self._network.caip2, minimum=minimum, method=method)
