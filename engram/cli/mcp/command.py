"""`engram mcp`: reach an MCP server with a hotkey, and make or revoke the tokens of clients that cannot sign."""

import hashlib
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
import trio
from cyclopts import App, Parameter

from engram.cli import output
from engram.cli.failures import CommandFailed, Exit
from engram.cli.numbers import whole
from engram.cli.options import SHOW, Show
from engram.cli.wallet.passwords import signing_key
from engram.clock import SystemClock, SystemIds
from engram.hotkeys import HotkeyError, Keypair
from engram.http.client import HttpClient
from engram.http.errors import HttpError
from engram.mcp import revocation, tokens
from engram.mcp.connect import Bridge, audience
from engram.mcp.revocation import Revoke
from engram.mcp.stdio import serve, standard_streams
from engram.mcp.tokens import Claims, TokenRefused
from engram.telemetry import logs

app = App(
    name="mcp",
    help="Reach an MCP server with a hotkey; tokens for clients that cannot sign.",
    help_epilogue="Example: `engram mcp connect https://agents.example/mcp --key my-hotkey`",
)

Url = Annotated[str, Parameter(help="URL of the server, such as https://agents.example/mcp.")]
Key = Annotated[Path, Parameter(help="Hotkey file to sign with.")]
_DAY_S: Final = 86_400
_BUSY: Final = 503
_TRIES: Final = 4
_PAUSE_S: Final = 1.0


@app.command(help_epilogue="Example: `engram mcp connect http://127.0.0.1:9600/mcp --key my-hotkey`")
def connect(url: Url, /, *, key: Key) -> int:
    """Connect an agent on standard input and output to a server, signing each of its messages."""
    keypair = _keypair(key)
    logs.configure("WARNING", json=False)

    async def run() -> None:
        http = HttpClient()
        try:
            bridge = Bridge(url, keypair, http, SystemClock(), SystemIds())
            source, sink = standard_streams()
            await serve(bridge.respond, source, sink)
        finally:
            await http.aclose()

    try:
        trio.run(run)
    except ValueError as error:
        raise CommandFailed(str(error), Exit.USAGE) from None
    return Exit.DONE


@app.command(help_epilogue="Example: `engram mcp token https://agents.example/mcp --key my-hotkey --days 7`")
def token(
    url: Url,
    /,
    *,
    key: Key,
    scope: Annotated[
        tuple[Literal["read", "write"], ...], Parameter(help="What it allows; repeatable.", negative="")
    ] = ("read",),
    namespace: Annotated[
        tuple[str, ...], Parameter(help="The only namespaces that it opens; repeatable.", negative="")
    ] = (),
    days: Annotated[int, Parameter(converter=whole, help="How long it is valid, 1 to 90.")] = 30,
    show: Show = SHOW,
) -> int:
    """Make a bearer token for one server. Whoever has it may use it until it expires or is revoked: keep it secret."""
    if not 1 <= days <= tokens.MAX_S // _DAY_S:
        raise CommandFailed(f"--days is 1 to {tokens.MAX_S // _DAY_S}, not {days}", Exit.USAGE)
    if not audience(url):
        raise CommandFailed(f"the server's URL is http(s)://HOST[:PORT]/PATH, not {url!r}", Exit.USAGE)
    keypair, now = _keypair(key), int(SystemClock().now())
    claims = Claims(
        key=keypair.ss58,
        aud=audience(url),
        scope=scope,
        iat=now,
        exp=now + days * _DAY_S,
        id=SystemIds().token(16),
        namespaces=namespace or None,
    )
    made = tokens.mint(keypair, claims)
    if show.json:
        output.document({"token": made, "id": claims.id, "expires_at": claims.exp, "scope": list(scope)})
    else:
        output.say(made)
    return Exit.DONE


@app.command(help_epilogue="Example: `engram mcp revoke https://agents.example/mcp --key my-hotkey --token token.txt`")
def revoke(
    url: Url,
    /,
    *,
    key: Key,
    token: Annotated[Path, Parameter(help="File with the token.")],
) -> int:
    """Revoke a token on a server; the key is the one that signed it."""
    keypair = _keypair(key)
    try:
        claims = tokens.claims_of(token.read_text(encoding="utf-8").strip())
    except OSError as error:
        raise CommandFailed(f"{token} cannot be read: {error.strerror}") from None
    except TokenRefused as refused:
        raise CommandFailed(f"{token}: {refused}") from None
    if claims.key != keypair.ss58:
        raise CommandFailed(f"{token} was signed by {claims.key}, not by {keypair.ss58}")
    body = msgspec.json.encode(Revoke(id=claims.id, exp=claims.exp))
    status, text = trio.run(_revoked, url, body, keypair)
    if status != 200:
        raise CommandFailed(f"the server refuses ({status}): {text[:300]}")
    output.say(f"revoked {claims.id}")
    return Exit.DONE


def revocations_url(url: str) -> str:
    """Return where a server takes revocations.

    >>> revocations_url("https://agents.example/mcp")
    'https://agents.example/mcp/revocations'
    """
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}{revocation.PATH}"


def _for_request(keypair: Keypair, url: str, body: bytes) -> str:
    now = int(SystemClock().now())
    claims = Claims(
        key=keypair.ss58,
        aud=audience(url),
        scope=("revoke",),
        iat=now,
        exp=now + tokens.REQUEST_S,
        id=SystemIds().token(16),
        body=hashlib.sha256(body).hexdigest(),
    )
    return tokens.mint(keypair, claims)


async def _revoked(url: str, body: bytes, keypair: Keypair) -> tuple[int, str]:
    """Send a revocation, signed again while the server has just started and takes no signed request yet."""
    for _ in range(_TRIES):
        status, text = await _post(revocations_url(url), body, _for_request(keypair, url, body))
        if status != _BUSY:
            break
        await trio.sleep(_PAUSE_S)
    return status, text


async def _post(url: str, body: bytes, made: str) -> tuple[int, str]:
    http = HttpClient()
    try:
        headers = {"authorization": f"Bearer {made}", "content-type": "application/json"}
        found = await http.request("POST", url, content=body, headers=headers)
        return found.status, found.content.decode(errors="replace")
    except HttpError as error:
        raise CommandFailed(f"{url}: {error}", Exit.NOT_RUNNING) from None
    finally:
        await http.aclose()


def _keypair(path: Path) -> Keypair:
    try:
        return signing_key(path)
    except HotkeyError as error:
        raise CommandFailed(str(error)) from None
