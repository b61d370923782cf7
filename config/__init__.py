"""Settings of Engram: typed, frozen, loaded from a profile, files, the environment and flags, in this order.

`config.model` lists every setting; `load` gives them with where each came from; `check` refuses combinations that
must not start in their environment.
"""

from config.errors import ConfigError, Problem
from config.loader import PROFILES, Loaded, Origin, load
from config.model import Environment, Settings
from config.rules import cautions, check, check_sockets

__all__ = [
    "PROFILES",
    "ConfigError",
    "Environment",
    "Loaded",
    "Origin",
    "Problem",
    "Settings",
    "cautions",
    "check",
    "check_sockets",
    "load",
]
