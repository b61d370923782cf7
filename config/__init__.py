"""Settings of Engram: typed, frozen, loaded from a profile, files, the environment and flags, in this order.

`config.model` lists every setting; `load` gives them with where each came from; `check` refuses combinations that
must not start in their environment.
"""

from .errors import ConfigError, Problem
from .loader import PROFILES, Loaded, Origin, load
from .model import Environment, Settings
from .rules import cautions, check

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
    "load",
]
