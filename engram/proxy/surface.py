"""The proxy's application with all of its endpoints."""

from engram.proxy.app import ProxyApp
from engram.proxy.endpoints.private import Private
from engram.proxy.endpoints.public import Status, check, healthy
from engram.proxy.state import State
from engram.proxy.websockets import Tunnel


def proxy_app(state: State) -> ProxyApp:
    """Return the public application."""
    app = ProxyApp(state)
    private = Private(app, state)
    app.add("GET", "/", healthy)
    app.add("GET", "/status", Status(state))
    app.add("GET", "/check/*", check)
    app.add("GET", "/capacity", private.capacity)
    app.add("POST", "/capacity", private.update_capacity)
    app.add("GET", "/jobs/*", private.job)
    app.add_tunnel(Tunnel(app, state))
    return app
