"""`engram new`: projects to start from."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from engram.cli import output
from engram.cli.failures import CommandFailed, Exit
from engram.cli.numbers import whole
from engram.cli.options import SHOW, Show
from engram.hotkeys import MalformedHotkey, parse_hotkey, ss58
from engram.kit.scaffold import ProjectRefused, create

app = App(name="new", help="Projects to start from.", help_epilogue="Example: `engram new miner my-miner`")


@app.command(name="miner", help_epilogue="Example: `engram new miner my-miner --port 8092 --netuid 11`")
def miner(
    name: Annotated[str, Parameter(help="The project's folder; its last part is the project's name.")],
    /,
    *,
    port: Annotated[int, Parameter(converter=whole, help="Port of the miner: where the proxy's default is.")] = 8091,
    netuid: Annotated[int, Parameter(converter=whole, help="The subnet.")] = 11,
    hotkey: Annotated[str | None, Parameter(help="Address of your hotkey; else a new one is made.")] = None,
    show: Show = SHOW,
) -> int:
    """Write a small miner: signed endpoints, /cvm, health, settings, tests that run, a container recipe."""
    if not 1 <= port <= 65_535:
        raise CommandFailed(f"--port is 1 to 65535, not {port}", Exit.USAGE)
    if not 0 <= netuid <= 65_535:
        raise CommandFailed(f"--netuid is 0 to 65535, not {netuid}", Exit.USAGE)
    try:
        address = None if hotkey is None else ss58.encode(parse_hotkey(hotkey))
        project = create(Path(name), netuid=netuid, port=port, hotkey=address)
    except (MalformedHotkey, ProjectRefused) as error:
        raise CommandFailed(str(error), Exit.USAGE) from None
    except OSError as error:
        raise CommandFailed(f"{name} cannot be written: {error.strerror}") from None
    if show.json:
        output.document(project)
        return Exit.DONE
    output.say(f"Made {project.folder}: {', '.join(project.files)}")
    if project.hotkey_file is not None:
        output.say(f"A new hotkey {project.hotkey} is in {project.hotkey_file}: keep it, and keep it out of git.")
    output.say(f"Next: cd {project.folder} && engram miner-check --local")
    return Exit.DONE
