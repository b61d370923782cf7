"""Answers of what every chain of the Cosmos SDK has, as far as they are read: blocks, accounts, transactions.

Numbers of 64 bits are text, amounts signed decimals. Nothing here is trusted to be complete: absent fields and null
lists stand for empty ones.
"""

from typing import Annotated, TypeAlias

import msgspec

from engram.provisioning.akash.model import pico_of

Whole: TypeAlias = Annotated[str, msgspec.Meta(pattern="^-?[0-9]{1,18}$")]
"""A whole number that the ledger can hold. What is none is refused where it is decoded, not where it is used."""
Unsigned: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[0-9]{1,20}$")]
"""A number of 64 bits that others have chosen."""
Small: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
"""A number of 32 bits."""
Amount: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]{1,23}(\.[0-9]{1,40})?$")]
"""A whole or decimal amount."""


class Coin(msgspec.Struct, frozen=True):
    """An amount; decimals where the chain computes with them."""

    denom: str = ""
    amount: Amount = "0"


class Pagination(msgspec.Struct, frozen=True):
    """Where the next page begins."""

    next_key: str | None = None


class BlockHeader(msgspec.Struct, frozen=True):
    """Of the newest block."""

    chain_id: str = ""
    height: Whole = "0"
    time: str = ""


class Block(msgspec.Struct, frozen=True):
    """A block."""

    header: BlockHeader = BlockHeader()


class LatestBlock(msgspec.Struct, frozen=True):
    """GET …/blocks/latest."""

    block: Block = Block()


class Syncing(msgspec.Struct, frozen=True):
    """GET …/syncing."""

    syncing: bool = False


class PubKey(msgspec.Struct, frozen=True):
    """The key that the chain knows an account by."""

    key: str = ""


class BaseAccount(msgspec.Struct, frozen=True):
    """An account that was ever funded."""

    address: str = ""
    account_number: Whole = "0"
    sequence: Whole = "0"
    pub_key: PubKey | None = None


class AccountAnswer(msgspec.Struct, frozen=True):
    """GET …/accounts/{address}."""

    account: BaseAccount = BaseAccount()


class BalancesAnswer(msgspec.Struct, frozen=True):
    """GET …/balances/{address}."""

    balances: tuple[Coin, ...] | None = None


class GasInfo(msgspec.Struct, frozen=True):
    """What a simulation used."""

    gas_used: Whole = "0"


class SimulateAnswer(msgspec.Struct, frozen=True):
    """POST …/simulate."""

    gas_info: GasInfo = GasInfo()


class TxResponse(msgspec.Struct, frozen=True):
    """What became of a transaction, or whether it was taken."""

    height: Whole = "0"
    txhash: str = ""
    codespace: str = ""
    code: Small = 0
    raw_log: str = ""
    gas_used: Whole = "0"
    data: str = ""
    """Hex of the messages' answers."""


class TxAnswer(msgspec.Struct, frozen=True):
    """GET …/txs/{hash}, POST …/txs."""

    tx_response: TxResponse = TxResponse()


class Refusal(msgspec.Struct, frozen=True):
    """The gateway's error answer."""

    code: int = 0
    message: str = ""


def amount_of(coins: tuple[Coin, ...] | None, denom: str) -> int:
    """Return the sum of the coins of that denomination, picoACT for uact. Raises ValueError."""
    return sum(pico_of(coin.amount) for coin in coins or () if coin.denom == denom)
