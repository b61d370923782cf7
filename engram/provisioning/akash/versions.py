"""Versions of the chain's modules that this program speaks: the one place where they are written."""

from typing import Final

CHAIN_ID: Final = "akashnet-2"
DEPLOYMENT: Final = "v1beta4"
MARKET: Final = "v1beta5"
ESCROW: Final = "v1"
PROVIDER: Final = "v1beta4"
CERT: Final = "v1"
BME: Final = "v1"
