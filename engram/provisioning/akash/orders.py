"""What is asked of chain and provider for one node: its SDL, compiled, with the node's environment in it."""

from collections.abc import Callable, Mapping

import msgspec

from config.model import AkashSettings
from engram.provisioning.akash.compiler import compile_sdl
from engram.provisioning.akash.model import PICO
from engram.provisioning.akash.node_sdl import NODE_PORT, SERVICE, NodeOrder, node_sdl
from engram.provisioning.akash.ports import Order, Wish
from engram.provisioning.akash.sdl import Sdl
from engram.provisioning.model import NodeSpec
from engram.sessions import Tier

DEPLOYMENT_VARIABLE = "ENGRAM_DEPLOYMENT"
"""Holds the deployment's number, so that no two deployments have the same manifest, and each hash names one."""


def definition_of(
    settings: AkashSettings,
    image: str,
    tier: Tier,
    environment: Mapping[str, str],
    max_price_uact: str,
    *,
    wide: bool = False,
) -> Sdl:
    """Return the SDL of a node; a wide one may be placed in any region. Raises InvalidSdl."""
    return node_sdl(
        NodeOrder(
            tier=tier,
            image=image,
            environment=environment,
            max_price_uact=max_price_uact,
            auditors=settings.auditors,
            attributes={"region": settings.region} if settings.region and not wide else {},
            storage_class=settings.storage_class,
        )
    )


def order_maker(
    settings: AkashSettings, image: str, environment_of: Callable[[NodeSpec], Mapping[str, str]]
) -> Callable[[Wish], Order]:
    """Return what makes orders. `environment_of` gives a node's variables; they hold no secret but its launch token."""

    def order(wish: Wish) -> Order:
        environment = {**environment_of(wish.spec), DEPLOYMENT_VARIABLE: str(wish.dseq)}
        ceiling = _decimal(wish.ceiling)
        compiled = compile_sdl(definition_of(settings, image, wish.spec.tier, environment, ceiling, wide=wish.wide))
        return Order(
            manifest=compiled.manifest, hash=compiled.version, groups=compiled.groups, service=SERVICE, port=NODE_PORT
        )

    return order


def outliving(spec: NodeSpec, further_s: float) -> NodeSpec:
    """Return the order for a node that ends by itself only so much later.

    Its environment cannot be changed while it runs, and an extended session would lose its node: on Akash the escrow is
    what ends a node whose gateway is gone.
    """
    return msgspec.structs.replace(spec, ends_at=spec.ends_at + further_s)


def _decimal(price: int) -> str:
    whole, fraction = divmod(price, PICO)
    return f"{whole}.{fraction:06d}".rstrip("0").rstrip(".")
