"""`engram akash`: nodes on Akash. `sdl` prints what a node of a tier is deployed by."""

import sys
from typing import Annotated, Final

from cyclopts import App, Parameter

from engram.cli.failures import CommandFailed, Exit
from engram.cli.options import SOURCES, Sources
from engram.sessions import TierName

app = App(
    name="akash",
    help="Nodes on Akash: the account that pays, and the definitions they are deployed by.",
    help_epilogue="Example: `engram akash wallet new ~/akash.key`",
)
app.command(
    "engram.cli.akash.wallet:app",
    name="wallet",
    help="The account that pays: create or import its key, show its address.",
)
_EXAMPLE: Final = "example"
_ALICE: Final = bytes.fromhex("d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d")
"""The key that every development chain knows, which is nobody's."""
_NEVER: Final = 253_402_300_799.0
"""The last second of the year 9999: a session that is sold ends by itself."""
_NOTE: Final = (
    "# Session, launch token, hotkey and controller are examples: a session that is sold has its own, and the number\n"
    "# of its deployment as ENGRAM_DEPLOYMENT besides.\n"
)


@app.command(name="sdl", help_epilogue="Example: `engram akash sdl --tier standard > standard.yaml`")
def sdl(
    *,
    tier: Annotated[TierName, Parameter(help="The size of the node.")],
    image: Annotated[str | None, Parameter(help="name@sha256:…; else provisioning.miner_image.")] = None,
    sources: Sources = SOURCES,
) -> None:
    """Print the definition (SDL, as YAML) of a node of a tier, as Console and Akash's own tools take it."""
    from engram.nodes.launch import LaunchFileError
    from engram.provisioning.akash import yaml_text
    from engram.provisioning.akash.compiler import compile_sdl
    from engram.provisioning.akash.errors import InvalidSdl
    from engram.provisioning.akash.orders import definition_of
    from engram.provisioning.akash.sdl import document_of
    from engram.provisioning.model import NodeSpec
    from engram.provisioning.node_environment import environment_of, foreign_settings
    from engram.sessions.rules import tiers

    settings = sources.load({"provisioning.miner_image": image}).settings
    akash = settings.akash
    size = tiers(settings.pricing.lite_usd_per_hour)[tier]
    most = {
        TierName.LITE: akash.max_price_lite,
        TierName.STANDARD: akash.max_price_standard,
        TierName.PRO: akash.max_price_pro,
    }
    spec = NodeSpec(
        token=_EXAMPLE,
        session_id=_EXAMPLE,
        tier=size,
        controller=_ALICE,
        hotkey=_ALICE,
        hotkey_file="",
        port=None,
        ends_at=_NEVER,
    )
    try:
        variables = environment_of(spec, foreign_settings(settings))
        definition = definition_of(akash, settings.provisioning.miner_image, size, variables, f"{most[tier]:g}")
        compile_sdl(definition)
    except LaunchFileError as error:
        raise CommandFailed(str(error)) from None
    except InvalidSdl as error:
        raise CommandFailed(f"{error}; --image or ENGRAM_MINER_IMAGE names the image", Exit.USAGE) from None
    sys.stdout.write(_NOTE + yaml_text.dump(document_of(definition)))
