"""The proxy's settings: the config.json of the original, a TOML file beside it, and environment variables."""

from engram.proxy.settings.model import ProxySettings, RouteSettings
from engram.proxy.settings.reading import Loaded, load

__all__ = ["Loaded", "ProxySettings", "RouteSettings", "load"]
