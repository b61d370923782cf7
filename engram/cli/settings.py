"""`engram config`: show the effective settings and their sources; check them without starting anything."""

from typing import Annotated

from cyclopts import App, Parameter

import config
from config import Loaded
from config.keys import KEYS, nearest
from config.showing import shown
from engram.cli import output
from engram.cli.failures import CommandFailed, Exit
from engram.cli.options import SHOW, SOURCES, Show, Sources
from engram.cli.roles import check_roles

app = App(name="config", help="Show and check settings.", help_epilogue="Example: `engram config show gateway`")


@app.command(
    name="show",
    help_epilogue="Example: `engram config show payments --profile mainnet`, or `engram config show --json`",
)
def show_config(
    *names: Annotated[str, Parameter(help="Sections or keys; all when none is named.")],
    sources: Sources = SOURCES,
    show: Show = SHOW,
) -> None:
    """Show the effective settings and where each came from; secrets are masked."""
    loaded = sources.load()
    keys = _chosen(names)
    if show.json:
        output.document({key: {"value": shown(loaded, key), "origin": str(loaded.origins[key])} for key in keys})
        return
    lines = [[key, output.printable(_text(loaded, key)), output.printable(str(loaded.origins[key]))] for key in keys]
    output.table(lines, ["key", "value", "from"])


def _chosen(names: tuple[str, ...]) -> list[str]:
    chosen = [key for key in KEYS if not names or key in names or key.partition(".")[0] in names]
    sections = {key.partition(".")[0] for key in KEYS}
    for name in names:
        if name not in KEYS and name not in sections:
            near = nearest(name, [*KEYS, *sections]) or "; `engram config show` lists them all"
            raise CommandFailed(f"there is no setting {name}{near}", Exit.USAGE)
    return chosen


def _text(loaded: Loaded, key: str) -> str:
    match shown(loaded, key):
        case bool() as switch:
            return "true" if switch else "false"
        case tuple() as values:
            return ", ".join(map(str, values))
        case value:
            return str(value)


@app.command(name="check", help_epilogue="Example: `engram config check gateway --profile mainnet`")
def check_config(
    *roles: Annotated[str, Parameter(help="Roles that would be started; gateway when none is named.")],
    sources: Sources = SOURCES,
) -> None:
    """Check whether these roles would start with the effective settings."""
    check_roles(roles)
    loaded = sources.load()
    config.check(loaded.settings, roles or ("gateway",))
    for caution in config.cautions(loaded.settings, roles or ("gateway",)):
        output.say(f"note: {caution.key}: {caution.message}")
    for unread in loaded.unread:
        output.say(f"note: {unread.key}: {unread.message}")
    output.say(f"the settings are valid for {', '.join(roles or ('gateway',))} on {loaded.profile}")
