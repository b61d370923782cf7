"""The official Python client of x402, imported without the deprecation warnings of its web3 dependency."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from x402 import x402Client
    from x402.client_base import SpendControlAsset, SpendControls
    from x402.extensions.bazaar import validate_discovery_extension
    from x402.http import FacilitatorConfig, HTTPFacilitatorClient, x402HTTPClient
    from x402.http.clients.httpx import x402HttpxClient
    from x402.mechanisms.evm.exact import ExactEvmScheme
    from x402.schemas import PaymentPayload, PaymentRequired, PaymentRequirements, SettleResponse
    from x402.schemas.v1 import PaymentPayloadV1, PaymentRequiredV1

from eth_account import Account

from engram.payments.keccak import checksummed
from engram.payments.networks import PLAY

__all__ = [
    "FacilitatorConfig",
    "HTTPFacilitatorClient",
    "PaymentPayload",
    "PaymentPayloadV1",
    "PaymentRequired",
    "PaymentRequiredV1",
    "PaymentRequirements",
    "SettleResponse",
    "buyer",
    "paying_client",
    "validate_discovery_extension",
]


def buyer(secret: bytes) -> x402HTTPClient:
    """The official client, paying from the account of this key on any EVM chain."""
    return x402HTTPClient(_client(secret))


def _client(secret: bytes) -> x402Client:
    """By itself it pays with the tokens it knows only; play money is added the way its users add a token."""
    client = x402Client()
    play = SpendControlAsset(network=PLAY.caip2, asset=checksummed(PLAY.asset), max_amount_per_payment="1000000000")
    client.set_spend_controls(SpendControls(allowed_assets=[play]))
    client.register("eip155:*", ExactEvmScheme(Account.from_key(secret)))
    return client


def paying_client(secret: bytes) -> x402HttpxClient:
    """The official client's HTTP client: it answers a 402 by paying and sends the request again."""
    return x402HttpxClient(_client(secret))
