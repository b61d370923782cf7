"""The kit of a miner with an HTTP API: signed endpoints, `/cvm`, health, limits and logs, for a project of one file.

`engram new miner NAME` writes such a project; see docs/miners.md.
"""

from engram.gpu import clear_gpu_memory, get_available_memory
from engram.http.errors import ApiError
from engram.kit.callers import Caller
from engram.kit.miner import Miner
from engram.kit.process import main
from engram.kit.rate_limiter import RateLimiter
from engram.kit.request_log import log_request
from engram.kit.settings import MinerSettings

__all__ = [
    "ApiError",
    "Caller",
    "Miner",
    "MinerSettings",
    "RateLimiter",
    "clear_gpu_memory",
    "get_available_memory",
    "log_request",
    "main",
]
