"""The chain's refusals: codespace, code and text as its own modules register them."""

import msgspec


class Code(msgspec.Struct, frozen=True):
    """A registered error."""

    codespace: str
    code: int
    text: str

    def error(self, detail: str = "") -> "Refused":
        """Return the refusal, with a detail before the text as the chain wraps it."""
        return Refused(self, detail)


class Refused(Exception):
    """A transaction or a message is refused."""

    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(f"{detail}: {code.text}" if detail else code.text)
        self.codespace = code.codespace
        self.code = code.code


class Wrapped(Refused):
    """A refusal whose text stands before its detail: `fmt.Errorf("%w: detail")`, unlike the SDK's own wrapping."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(code)
        self.args = (f"{code.text}: {detail}",)


# The SDK's own.
TX_DECODE = Code("sdk", 2, "tx parse error")
UNAUTHORIZED = Code("sdk", 4, "unauthorized")
INSUFFICIENT_FUNDS = Code("sdk", 5, "insufficient funds")
UNKNOWN_REQUEST = Code("sdk", 6, "unknown request")
INVALID_ADDRESS = Code("sdk", 7, "invalid address")
INVALID_PUB_KEY = Code("sdk", 8, "invalid pubkey")
UNKNOWN_ADDRESS = Code("sdk", 9, "unknown address")
INVALID_COINS = Code("sdk", 10, "invalid coins")
OUT_OF_GAS = Code("sdk", 11, "out of gas")
MEMO_TOO_LARGE = Code("sdk", 12, "memo too large")
INSUFFICIENT_FEE = Code("sdk", 13, "insufficient fee")
NO_SIGNATURES = Code("sdk", 15, "no signatures supplied")
INVALID_REQUEST = Code("sdk", 18, "invalid request")
TX_IN_MEMPOOL_CACHE = Code("sdk", 19, "tx already in mempool")
MEMPOOL_IS_FULL = Code("sdk", 20, "mempool is full")
TX_TIMEOUT_HEIGHT = Code("sdk", 30, "tx timeout height")
WRONG_SEQUENCE = Code("sdk", 32, "incorrect account sequence")

# x/deployment
DEPLOYMENT_EXISTS = Code("deployment", 3, "Deployment exists")
DEPLOYMENT_NOT_FOUND = Code("deployment", 4, "Deployment not found")
DEPLOYMENT_CLOSED = Code("deployment", 5, "Deployment closed")
INVALID_GROUPS = Code("deployment", 7, "Invalid groups")
INVALID_DEPLOYMENT_ID = Code("deployment", 8, "Invalid: deployment id")
EMPTY_HASH = Code("deployment", 9, "Invalid: empty hash")
INVALID_HASH = Code("deployment", 10, "Invalid: deployment hash")
DEPLOYMENT_DEPOSIT = Code("deployment", 20, "Deposit invalid")
MISMATCHED_DENOMINATIONS = Code("deployment", 20, "Mismatched denominations")
INVALID_PRICE = Code("deployment", 24, "invalid price")
DUPLICATE_GROUP_NAME = Code("deployment", 25, "duplicate group name")
INVALID_RECLAMATION = Code("deployment", 26, "invalid reclamation configuration")

# x/market
BID_OVER_ORDER = Code("market", 4, "bid price above max order price")
ATTRIBUTE_MISMATCH = Code("market", 5, "attribute mismatch")
UNKNOWN_BID = Code("market", 6, "unknown bid")
LEASE_NOT_ACTIVE = Code("market", 10, "lease not active")
BID_NOT_OPEN = Code("market", 12, "bid not open")
ORDER_NOT_OPEN = Code("market", 13, "bid: order not open")
NO_LEASE_FOR_ORDER = Code("market", 14, "no lease for order")
ORDER_NOT_FOUND = Code("market", 15, "invalid order: order not found")
GROUP_NOT_FOUND = Code("market", 16, "group not found")
GROUP_NOT_OPEN = Code("market", 17, "group not open")
BID_NOT_FOUND = Code("market", 18, "invalid bid: bid not found")
BID_EXISTS = Code("market", 21, "invalid bid: bid exists from provider")
ORDER_CLOSED = Code("market", 24, "order closed")
MARKET_DEPOSIT = Code("market", 28, "deposit invalid")
NOT_RECLAIMABLE = Code("market", 35, "lease does not have reclamation configured")
ALREADY_RECLAIMING = Code("market", 36, "reclamation already in progress")
RECLAMATION_NOT_STARTED = Code("market", 37, "reclamation not started; call MsgLeaseStartReclaim first")
RECLAMATION_WINDOW = Code("market", 38, "reclamation window has not elapsed")
RECLAMATION_REQUIRED = Code("market", 40, "order requires reclamation but bid does not offer it")
RECLAMATION_TOO_SHORT = Code("market", 41, "reclamation window shorter than order minimum")

# x/escrow
ACCOUNT_EXISTS = Code("escrow", 1, "account exists")
ACCOUNT_CLOSED = Code("escrow", 2, "account closed")
ACCOUNT_NOT_FOUND = Code("escrow", 3, "account not found")
ACCOUNT_OVERDRAWN = Code("escrow", 4, "account overdrawn")
ESCROW_DENOM = Code("escrow", 5, "invalid denomination")
PAYMENT_EXISTS = Code("escrow", 6, "payment exists")
PAYMENT_CLOSED = Code("escrow", 7, "payment closed")
PAYMENT_NOT_FOUND = Code("escrow", 8, "payment not found")
PAYMENT_RATE_ZERO = Code("escrow", 9, "payment rate zero")

# x/bme
CIRCUIT_BREAKER = Code("bme", 6, "circuit breaker is active")
BME_AMOUNT = Code("bme", 8, "invalid amount")
BME_DENOM = Code("bme", 9, "invalid denomination")
MINIMUM_MINT = Code("bme", 16, "mint amount below minimum")
