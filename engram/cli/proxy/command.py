"""`engram proxy`: make and check the settings of the reverse proxy, and explain how a request ended."""

import datetime as dt
import os
from pathlib import Path
from typing import Annotated

import msgspec
import trio
from cyclopts import App, Parameter

from config import ConfigError
from engram.cli import output
from engram.cli.failures import CommandFailed, Exit
from engram.cli.numbers import whole
from engram.cli.options import SHOW, SOURCES, Show, Sources
from engram.http.client import HttpClient
from engram.http.errors import HttpError
from engram.proxy.settings import example, load
from engram.proxy.settings.certificates import certificate_cautions
from engram.proxy.settings.environment import DEFAULT_PATH, PATH_VARIABLE
from engram.proxy.settings.words import cautions, explain

app = App(
    name="proxy",
    help="Check the reverse proxy's settings; explain how a request ended.",
    help_epilogue="Example: `engram proxy check-config`",
)


class _Why(msgspec.Struct, frozen=True):
    words: str
    ended: dict[str, object]


@app.command(name="check-config", help_epilogue="Example: `engram proxy check-config --file reverse_proxy/config.json`")
def check_config(
    *,
    file: Annotated[Path | None, Parameter(help=f"Settings file or folder; else {PATH_VARIABLE}.")] = None,
    show: Show = SHOW,
) -> int:
    """Explain every route, backend and limit in words, or name each key that is wrong and what would be right.

    The exit status is 2 when the proxy would not start.
    """
    environ = dict(os.environ)
    if file is not None:
        environ[PATH_VARIABLE] = str(file)
    loaded = load(environ)
    lines = list(explain(loaded))
    warnings = [*cautions(loaded), *certificate_cautions(loaded.settings.server, dt.datetime.now(dt.UTC))]
    if show.json:
        output.document({"settings": lines, "cautions": warnings, "origins": dict(loaded.origins)})
        return Exit.DONE
    for line in lines:
        output.say(line)
    for warning in warnings:
        output.say(f"Look at: {warning}")
    return Exit.DONE


@app.command(name="config", help_epilogue="Example: `engram proxy config`")
def make_config(*, file: Annotated[Path | None, Parameter(help="The file to make.")] = None) -> int:
    """Make a settings file to fill in; one that is there is left alone."""
    path = file or Path(os.environ.get(PATH_VARIABLE) or DEFAULT_PATH)
    if path.is_dir():
        path = path / "config.json"
    try:
        made = example.create(path)
    except OSError as error:
        raise CommandFailed(f"{path} cannot be written: {error.strerror}") from None
    if made:
        output.say(f"made {path}: write this miner's hotkey into auth.miner_hotkey")
    else:
        output.say(f"{path} is there already and was left alone")
    return Exit.DONE


@app.command(name="why", help_epilogue="Example: `engram proxy why 60d08e469f4635a3`")
def why(
    request_id: Annotated[str, Parameter(help="The X-Request-Id of an answer, or request_id of a log line.")],
    *,
    sources: Sources = SOURCES,
    ops_port: Annotated[
        int | None, Parameter(converter=whole, help="Port of the running proxy's operator's listener.")
    ] = None,
    show: Show = SHOW,
) -> int:
    """Explain how a request to the running proxy ended: in which phase, by whom, after how long."""
    try:
        settings = sources.load().settings
    except ConfigError as error:
        raise CommandFailed(str(error), Exit.USAGE) from None
    if not request_id.isalnum():
        raise CommandFailed(f"{request_id!r} is no request id, such as 60d08e469f4635a3", Exit.USAGE)
    url = f"http://{settings.ops.host}:{ops_port or settings.ops.port}/why/{request_id}"
    found = trio.run(_ask, url)
    if show.json:
        output.document(found.ended)
    else:
        for line in found.words.splitlines():
            output.say(line)
    return Exit.DONE


async def _ask(url: str) -> _Why:
    client = HttpClient()
    try:
        answer = await client.request("GET", url, fresh=True)
        if answer.status == 404:
            raise CommandFailed("no request of this id is known: the newest 10,000 of the running proxy are kept")
        return answer.decode(_Why)
    except HttpError as error:
        text = f"no proxy answers at {url.partition('/why/')[0]} ({error}); --ops-port names another port"
        raise CommandFailed(text, Exit.NOT_RUNNING) from None
    finally:
        await client.aclose()
