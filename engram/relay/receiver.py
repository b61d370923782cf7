"""Hands one signed payload to the receiver over HTTP.

A receiver that negotiates schemas signs its acknowledgements: from such a one an answer of 2xx counts only with the
acknowledgement of this very payload, so that a portal or a wrong server on the way, which answers 200 to everything,
takes nothing. From any other, as from the original, 2xx is all there is.
"""

from typing import final
from urllib.parse import urljoin

import msgspec

from engram import wire
from engram.api import xeris as api
from engram.hotkeys import MalformedHotkey, ss58, verify
from engram.http.client import HttpClient
from engram.http.errors import BadAnswer, HttpError, NotSent, TooLarge
from engram.relay.model import Answered, Outcome, Unknown, Unreachable
from engram.relay.negotiation import NO_NEGOTIATION, ORIGINAL, NotKnown, Terms
from engram.relay.rules import acknowledged_text
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
        self._negotiates = False

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
            is_taken = 200 <= error.status < 300
            return Unknown(str(error)) if is_taken and self._negotiates else Answered(error.status)
        except (BadAnswer, HttpError) as error:
            return Unknown(str(error))
        if self._negotiates and 200 <= response.status < 300 and not is_acknowledged(response.content, signed):
            return Unknown(f"it answered {response.status} without the signed acknowledgement of this payload")
        return Answered(response.status, retry_after_s(response.headers.get("retry-after", "")))

    async def ask_terms(self) -> Terms | NotKnown:
        """Ask which schemas the receiver takes, at `schemas` beside the address of payloads. Never raises.

        A receiver that has negotiated is not believed to be one that does not, because of an answer of 2xx that is no
        list of schemas.
        """
        found = await self._terms()
        if isinstance(found, Terms):
            self._negotiates = found.negotiated
        return found

    async def _terms(self) -> Terms | NotKnown:
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
            is_original = error.status == 200 and not self._negotiates
            return ORIGINAL if is_original else NotKnown(Answered(error.status))
        except (BadAnswer, HttpError) as error:
            return NotKnown(Unknown(str(error)))
        if response.status == 200:
            try:
                offered = wire.decode(response.content, api.Schemas)
            except (msgspec.DecodeError, UnicodeDecodeError):
                return NotKnown(Unknown("GET /schemas: no list of schemas")) if self._negotiates else ORIGINAL
            return Terms({each.kind: each.versions for each in offered.schemas})
        return ORIGINAL if response.status in NO_NEGOTIATION else NotKnown(Answered(response.status))


def is_acknowledged(answer: bytes, signed: Signed) -> bool:
    """Return whether the answer is a receiver's acknowledgement of this payload, signed by the key that it names."""
    try:
        found = wire.decode(answer, api.Acknowledged)
        key, signature = ss58.decode(found.receiver), bytes.fromhex(found.signature.removeprefix("0x"))
    except (msgspec.DecodeError, UnicodeDecodeError, MalformedHotkey, ValueError):
        return False
    message = acknowledged_text(found.signed_hash, found.received_ms)
    return found.signed_hash == signed.signed_hash and verify(key, message, signature, allow_wrapped=False)


def retry_after_s(text: str) -> float | None:
    """Return the seconds of a Retry-After header in its numeric form (RFC 9110 10.2.3); None for anything else."""
    digits = text.strip()
    return float(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None
