"""The node, key and namespace that a command uses."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from engram.cli.failures import CommandFailed, Exit
from engram.cli.wallet.passwords import signing_key
from engram.hotkeys import HotkeyError, Keypair, miner_scheme
from engram.hotkeys.python_json import JsonObject
from engram.sdk.errors import ApiError, NotReached, OutcomeUnknown, SdkError


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class NodeTarget:
    """A running node and the key to sign with."""

    to: Annotated[str | None, Parameter(help="URL of the node.")] = None
    data: Annotated[Path | None, Parameter(help="The node's data folder, to find its URL instead of --to.")] = None
    key: Annotated[Path | None, Parameter(help="Hotkey file to sign with; without it, requests are unsigned.")] = None
    namespace: Annotated[str | None, Parameter(help="Private namespace of that key; by default the public one.")] = None

    def url(self) -> str:
        """Return the URL of the node. Raises CommandFailed when none is named."""
        from engram.miner import folder

        if (self.to is None) == (self.data is None):
            raise CommandFailed("name the node by --to URL, or by --data with its data folder", Exit.USAGE)
        if self.data is None:
            return self.to or ""
        found = folder.read_node_file(self.data)
        if found is None or not folder.is_running(self.data):
            raise CommandFailed(f"no node runs on {self.data}", Exit.NOT_RUNNING)
        return found.url

    def keypair(self) -> Keypair | None:
        """Return the key to sign with. Raises CommandFailed for an invalid file, or a namespace without a key."""
        if self.key is None:
            if self.namespace is not None:
                raise CommandFailed("a private namespace needs --key, the hotkey file that it belongs to", Exit.USAGE)
            return None
        try:
            return signing_key(self.key)
        except HotkeyError as error:
            raise CommandFailed(str(error)) from None


class BodySigner:
    """Signs bodies with one key, each with a unique timestamp."""

    def __init__(self, keypair: Keypair | None) -> None:
        self._keypair = keypair
        self._last_ms = 0

    @property
    def ss58(self) -> str | None:
        """The address of the key; None without a key."""
        return None if self._keypair is None else self._keypair.ss58

    def signed(self, endpoint: str, fields: JsonObject, namespace: str | None) -> JsonObject:
        """Return the fields signed for that endpoint; for a private namespace too. Raises ValueError without a key."""
        if self._keypair is None:
            if namespace is not None:
                raise ValueError("a private namespace needs a key: it would end up public")
            return fields
        self._last_ms = max(time.time_ns() // 10**6, self._last_ms + 1)
        if namespace is not None:
            fields = miner_scheme.sign_namespace_request(self._keypair, endpoint, namespace, fields, self._last_ms)
        return miner_scheme.sign_body(self._keypair, endpoint, fields, self._last_ms)


NODE = NodeTarget()


@contextmanager
def answered() -> Iterator[None]:
    """Raise CommandFailed for errors of a node or of the connection to it."""
    try:
        yield
    except NotReached as error:
        raise CommandFailed(str(error), Exit.NOT_RUNNING) from None
    except OutcomeUnknown as error:
        raise CommandFailed(str(error), Exit.UNKNOWN) from None
    except ApiError as error:
        raise CommandFailed(f"the node refuses: {error}") from None
    except SdkError as error:
        raise CommandFailed(str(error)) from None
