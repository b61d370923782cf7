"""Hands one signed payload to the receiver over HTTP.

A receiver that negotiates schemas signs its acknowledgements: from such a one an answer of 2xx counts only with the
acknowledgement of this very payload, so that a portal or a wrong server on the way, which answers 200 to everything,
takes nothing. From one of the original 2xx is all there is; none is taken for that because of a 404, which a proxy
gives for a receiver that is being restarted, or for a wrong address: only the operator says so.
"""

from typing import final
from urllib.parse import urljoin

import msgspec

from config.model import RelaySettings
from engram import wire
from engram.api import xeris as api
from engram.hotkeys import MalformedHotkey, PublicKey, ss58, verify
from engram.http.client import HttpClient
from engram.http.errors import BadAnswer, HttpError, NotSent, TooLarge
from engram.relay.model import Answered, Outcome, Unknown, Unreachable
from engram.relay.negotiation import NO_NEGOTIATION, ORIGINAL, NotKnown, Terms
from engram.relay.rules import acknowledged_text
from engram.relay.signer import Signed

MAX_ANSWER_BYTES = 65_536
MAX_SHOWN_BYTES = 2_000_000
"""Of a payload that the receiver shows, with its acknowledgement and its path."""
CONNECT_S = 5.0
_NO_LIST = Unknown("GET /schemas answered 200 and no list of schemas: a portal, or no receiver")


class _Shown(msgspec.Struct, frozen=True):
    acknowledgement: msgspec.Raw


@final
class Receiver:
    """One receiver. `timeout_s` bounds each attempt as a whole."""

    def __init__(
        self,
        http: HttpClient,
        url: str,
        timeout_s: float,
        *,
        may_be_original: bool = False,
        pinned: PublicKey | None = None,
    ) -> None:
        """Take the key that must have signed acknowledgements, None: whichever they name.

        With `may_be_original` a receiver is believed when it says that it does not negotiate.
        """
        self._http = http
        self._url = url
        self._timeout_s = timeout_s
        self._may_be_original = may_be_original
        self._negotiates = False
        self._pinned = pinned
        self.acknowledged_by = ""
        """The key (ss58) that signed the last acknowledgement."""

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
        if self._negotiates and 200 <= response.status < 300:
            if (key := acknowledged_by(response.content, signed)) is None:
                return Unknown(f"it answered {response.status} without the signed acknowledgement of this payload")
            if self._pinned not in (None, key):
                return Unknown(f"{ss58.encode(key)} has signed the acknowledgement, and is not relay.receiver_key")
            self.acknowledged_by = ss58.encode(key)
        return Answered(response.status, retry_after_s(response.headers.get("retry-after", "")))

    async def ask_terms(self, negotiated: bool) -> Terms | NotKnown:
        """Ask which schemas the receiver takes, at `schemas` beside the address of payloads. Never raises.

        From a receiver that has `negotiated` before only signed acknowledgements count, whatever it answers now.
        """
        self._negotiates = self._negotiates or negotiated
        found = await self._terms()
        if isinstance(found, Terms):
            self._negotiates = found.negotiated
        return found

    async def has_accepted(self, signed_hash: str) -> bool | None:
        """Return whether the receiver shows its signed acknowledgement of a payload, whoever has sent it; None where it
        cannot be asked, or is one of the original. Never raises."""
        if self._may_be_original:
            return None
        try:
            response = await self._http.request(
                "GET",
                urljoin(self._url, f"intelligence/{signed_hash}"),
                connect_s=min(CONNECT_S, self._timeout_s),
                read_s=self._timeout_s,
                total_s=self._timeout_s,
                max_bytes=MAX_SHOWN_BYTES,
            )
        except HttpError:
            return None
        if response.status != 200:
            return False if response.status == 404 else None
        try:
            shown = wire.decode(response.content, _Shown)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        key = acknowledged_by(bytes(shown.acknowledgement), Signed(b"", signed_hash))
        return None if key is None or self._pinned not in (None, key) else True

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
            return NotKnown(_NO_LIST if error.status == 200 else Answered(error.status))
        except (BadAnswer, HttpError) as error:
            return NotKnown(Unknown(str(error)))
        if response.status == 200:
            try:
                offered = wire.decode(response.content, api.Schemas)
            except (msgspec.DecodeError, UnicodeDecodeError):
                return NotKnown(_NO_LIST)
            takes = {each.kind: each.versions for each in offered.schemas if each.versions}
            return Terms(takes) if takes else NotKnown(_NO_LIST)
        if self._may_be_original and response.status in NO_NEGOTIATION:
            return ORIGINAL
        return NotKnown(Answered(response.status))


def open_receiver(http: HttpClient, settings: RelaySettings) -> Receiver | None:
    """Return the configured receiver; None while the relay is off. Raises MalformedHotkey."""
    if not settings.url:
        return None
    pinned = ss58.decode(settings.receiver_key) if settings.receiver_key else None
    return Receiver(http, settings.url, settings.timeout_s, may_be_original=settings.original_receiver, pinned=pinned)


def acknowledged_by(answer: bytes, signed: Signed) -> PublicKey | None:
    """Return the key that has signed a receiver's acknowledgement of this payload; None when the answer is none."""
    try:
        found = wire.decode(answer, api.Acknowledged)
        key, signature = ss58.decode(found.receiver), bytes.fromhex(found.signature.removeprefix("0x"))
    except (msgspec.DecodeError, UnicodeDecodeError, MalformedHotkey, ValueError):
        return None
    message = acknowledged_text(found.signed_hash, found.received_ms)
    is_of_it = found.signed_hash == signed.signed_hash and verify(key, message, signature, allow_wrapped=False)
    return key if is_of_it else None


def retry_after_s(text: str) -> float | None:
    """Return the seconds of a Retry-After header in its numeric form (RFC 9110 10.2.3); None for anything else."""
    digits = text.strip()
    return float(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None
