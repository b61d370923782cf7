"""The environment variables of the original, and what became of each."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

PATH_VARIABLE: Final = "REVERSE_PROXY_CONFIG_PATH"
"""Names the settings file, or the folder that holds `config.json` and `config.toml`."""
DEFAULT_PATH: Final = "reverse_proxy/config.json"

VARIABLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "MINER_HOTKEY": "auth.miner_hotkey",
        "HOST": "server.host",
        "PORT": "server.port",
        "RELOAD": "server.reload",
        "LOG_LEVEL": "server.log_level",
        "LOG_FORMAT": "server.log_format",
        "CHAIN_ENDPOINT": "auth.chain_endpoint",
        "ALLOWED_DELTA_MS": "auth.allowed_delta_ms",
        "CACHE_DURATION": "auth.cache_duration",
        "TRAINING_SERVER_URL": "services.training_server_url",
        "INFERENCE_SERVER_URL": "services.inference_server_url",
        "CORS_ORIGINS": "server.cors_origins",
        "MAX_REQUEST_SIZE": "bodies.max_bytes",
        "REQUEST_TIMEOUT": "services.request_timeout_s",
        "RATE_LIMIT_PER_MINUTE": "limits.requests_per_minute_per_key",
        "MIN_STAKE_REQUIRED": "auth.min_stake",
    }
)
"""Key of the setting that each variable gives."""

REPLACED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "VALIDATE_REQUESTS": "requests are always validated: signature, size, framing and rate; there is no switch",
    }
)
"""Variables that set nothing, and why."""

COMMON: Final = frozenset({"HOST", "PORT"})
"""Names that platforms set for every program: the start prints where their values came from."""
