"""What a client of the gateway or of a node may have to handle; every message says what to do next."""

from typing import final


class SdkError(Exception):
    """Base; never raised itself."""


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
    """The other side said no. `code` is a word for programs; `verified` whether the gateway signed this answer."""

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
    """What a node listed is not what it has committed to: memories were deleted meanwhile, or some were withheld.

    List again; a node on which this stays so while nothing changes withholds something.
    """


@final
class Impostor(SdkError):
    """The answer does not bear the signature of the gateway's key: do not pay, do not trust it."""


@final
class PaymentNeeded(SdkError):
    """The gateway asks for money and this client has no wallet, or was told to spend less."""


@final
class PaymentRefused(SdkError):
    """The payment was not taken; `reason` is the gateway's. No money moved that it knows of."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the payment was refused: {reason}")
        self.reason = reason


@final
class SessionOver(SdkError):
    """The session has ended (or failed) while it was being waited for."""


@final
class WaitedTooLong(SdkError):
    """What was waited for has not happened in time; it may still."""


@final
class NodeRefused(SdkError):
    """The node did not store or find as it was asked to; the message says why.

    With code `not_owner` the memory is stored under `cid`, and belongs to `owner` (SS58; None: nobody), not to who
    sent it.
    """

    def __init__(self, message: str, *, code: str = "", cid: str | None = None, owner: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.cid = cid
        self.owner = owner


@final
class MalformedAnswer(SdkError):
    """The other side answered something that is no answer of this API."""
