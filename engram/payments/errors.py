"""What can be wrong with a payment before it is one."""

from typing import final


class PaymentError(Exception):
    """Base of this area's errors; never raised itself."""


@final
class MalformedPayment(PaymentError):
    """A payment header cannot be read as an x402 payment. The message says what is wrong; HTTP status 400."""


@final
class UnprovenReceipt(PaymentError):
    """The header carries a receipt (a bare transaction hash, a development receipt) that proves nothing; 402."""


@final
class UnknownNetwork(PaymentError):
    """No network of that name can be taken. The message names those that can."""


@final
class MalformedAddress(PaymentError):
    """The text is no 20-byte address, or its mixed-case checksum is wrong."""


@final
class NotForPlay(PaymentError):
    """The play wallet signs only for play money."""


@final
class UnusableRefundKey(PaymentError, ValueError):
    """The refund key cannot be used. The message says why, without the key."""


class RpcFailed(Exception):
    """The node gave no usable answer; the message is a word that says why."""
