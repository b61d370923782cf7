"""Errors that a client of the gateway or of a node may have to handle; every message says what to do next."""

from typing import final


class SdkError(Exception):
    """Base of the SDK's errors; never raised itself."""


@final
class NotReached(SdkError):
    """Nothing was sent: no connection. Trying again is safe."""


@final
class OutcomeUnknown(SdkError):
    """The request was sent and no whole answer came back: it may have been carried out.

    Ask for the state (the same request again with the same payment is safe); never sign a second payment.
    """


@final
class ApiError(SdkError):
    """The server refused the request. `code` is for programs; `verified` is whether the gateway signed the answer."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        request_id: str = "",
        retry_after_s: float | None = None,
        verified: bool = False,
    ) -> None:
        named = f" (request {request_id})" if request_id else ""
        super().__init__(f"{status} {code}: {message}{named}")
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.verified = verified


@final
class ListingIncomplete(SdkError):
    """A node's listing does not match its commitment: memories were deleted meanwhile, or some were withheld.

    List again; if this repeats while nothing changes, the node withholds something.
    """


@final
class Impostor(SdkError):
    """The answer is not signed by the expected key: do not pay, do not trust it."""


@final
class PaymentNeeded(SdkError):
    """The gateway asks for a payment, and this client has no wallet or a lower spending limit."""


@final
class PaymentRefused(SdkError):
    """The gateway refused the payment for `reason`. No money moved, as far as it knows."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the payment was refused: {reason}")
        self.reason = reason


@final
class SessionOver(SdkError):
    """The session ended (or failed) while the client waited for it."""


@final
class WaitedTooLong(SdkError):
    """The awaited state was not reached in time; it may still be reached."""


@final
class NodeRefused(SdkError):
    """The node refused to store or find something; the message says why.

    With code `not_owner` the memory is stored under `cid` but belongs to `owner` (SS58; None: to no key) instead of
    its sender.
    """

    def __init__(self, message: str, *, code: str = "", cid: str | None = None, owner: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.cid = cid
        self.owner = owner


@final
class MalformedAnswer(SdkError):
    """The server sent something that is not an answer of this API."""
