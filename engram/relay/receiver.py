"""Hands one signed payload to the receiver over HTTP."""

from typing import final
from urllib.parse import urljoin

import msgspec

from engram import wire
from engram.api import xeris as api
from engram.http.client import HttpClient
from engram.http.errors import BadAnswer, HttpError, NotSent, TooLarge
from engram.relay.model import Answered, Outcome, Unknown, Unreachable
from engram.relay.negotiation import NO_NEGOTIATION, ORIGINAL, NotKnown, Terms
from engram.relay.signer import Signed

MAX_ANSWER_BYTES = 65_536
CONNECT_S = 5.0


@final
class Receiver:
    """One receiver. `timeout_s` bounds each attempt as a whole."""

    def __init__(self, http: HttpClient, url: str, timeout_s: float) -> None:
        self._http = http
        self._url = url
        self._timeout_s = timeout_s

    async def submit(self, signed: Signed) -> Outcome:
        """Send the payload once and return what is known of it. Redirects are not followed. Never raises."""
        try:
            response = await self._http.request(
                "POST",
                self._url,
                content=signed.body,
                headers={"content-type": "application/json", "idempotency-key": signed.signed_hash},
                connect_s=min(CONNECT_S, self._timeout_s),
                read_s=self._timeout_s,
                total_s=self._timeout_s,
                max_bytes=MAX_ANSWER_BYTES,
            )
        except NotSent as error:
            return Unreachable(str(error))
        except TooLarge as error:
            return Answered(error.status)
        except (BadAnswer, HttpError) as error:
            return Unknown(str(error))
        return Answered(response.status, retry_after_s(response.headers.get("retry-after", "")))

    async def ask_terms(self) -> Terms | NotKnown:
        """Ask which schemas the receiver takes, at `schemas` beside the address of payloads. Never raises."""
        try:
            response = await self._http.request(
                "GET",
                urljoin(self._url, "schemas"),
                connect_s=min(CONNECT_S, self._timeout_s),
                read_s=self._timeout_s,
                total_s=self._timeout_s,
                max_bytes=MAX_ANSWER_BYTES,
            )
        except NotSent as error:
            return NotKnown(Unreachable(str(error)))
        except TooLarge as error:
            return ORIGINAL if error.status == 200 else NotKnown(Answered(error.status))
        except (BadAnswer, HttpError) as error:
            return NotKnown(Unknown(str(error)))
        if response.status == 200:
            try:
                offered = wire.decode(response.content, api.Schemas)
            except (msgspec.DecodeError, UnicodeDecodeError):
                return ORIGINAL
            return Terms({each.kind: each.versions for each in offered.schemas})
        return ORIGINAL if response.status in NO_NEGOTIATION else NotKnown(Answered(response.status))


def retry_after_s(text: str) -> float | None:
    """Return the seconds of a Retry-After header in its numeric form (RFC 9110 10.2.3); None for anything else."""
    digits = text.strip()
    return float(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None
