"""The environment variables that Engram reads, and the `.env` files they may be written in."""

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

VARIABLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "X402_RECIPIENT_ADDRESS": "payments.recipient",
        "X402_FACILITATOR_URL": "payments.facilitator_url",
        "X402_NETWORK": "payments.network",
        "X402_RPC_URL": "payments.rpc_url",
        "CLOUD_PRICE_PER_HOUR_USD": "pricing.lite_usd_per_hour",
        "AKASH_OWNER_ADDRESS": "akash.owner_address",
        "AKASH_NODE_URL": "akash.node_url",
        "AKASH_CHAIN_ID": "akash.chain_id",
        "GATEWAY_PORT": "gateway.port",
        "GATEWAY_AUTH_REQUIRED": "gateway.auth_required",
        "ENGRAM_MINER_IMAGE": "provisioning.miner_image",
        "REQUIRE_HOTKEY_SIG": "miner.require_signature",
        "LOG_LEVEL": "log.level",
    }
)
"""Key of the setting that each variable gives."""

STATE_VARIABLE: Final = "STATE_DIRECTORY"
"""The folder that a service manager made for this service's data: `data_dir`, where nothing else names it."""

SERVICE_FILE: Final = "environment"
"""The file beside a settings file from which a service manager takes the service's variables (`EnvironmentFile=`).

A command that is given the same settings reads it itself, or it would mean another profile than the service."""

PROFILE_VARIABLE: Final = "ENGRAM_ENV"
"""Names the profile; `dev` means local."""

ENV_FILES: Final = (".env", ".env.miner")
"""Read in this order from the working directory; the process's own variables win over both."""

NAMES: Final = (*VARIABLES, PROFILE_VARIABLE)

_PREFIXES: Final = ("X402_", "CLOUD_", "AKASH_", "GATEWAY_")


_OF_OTHERS: Final = 0.6
"""How like one of ours a variable of the process must be: other programs' begin with CLOUD_, AKASH_ and GATEWAY_ too
(CLOUD_SDK_VERSION, AKASH_KEYRING_BACKEND)."""


def misspelled(name: str, *, in_process: bool = False) -> str | None:
    """Return the variable that `name` was probably meant to be, or None when it is not ours.

    A `.env` file and the process (`in_process`) may hold variables of other programs; what looks like one of ours and
    is none is refused in the file, and is a warning in the process, which holds more of them.

    >>> misspelled("X402_RECIPIENT_ADRESS")
    'X402_RECIPIENT_ADDRESS'
    >>> misspelled("POSTGRES_PASSWORD")
    """
    if name in NAMES:
        return None
    ours = "X402_" if in_process else _PREFIXES
    cutoff = 0.0 if name.startswith(ours) else _OF_OTHERS if name.startswith(_PREFIXES) else 0.85
    near = difflib.get_close_matches(name, NAMES, n=1, cutoff=cutoff)
    return near[0] if near else None


def variable_of(key: str) -> str | None:
    """Return the variable that gives the setting `key`, if there is one."""
    return next((name for name, target in VARIABLES.items() if target == key), None)
