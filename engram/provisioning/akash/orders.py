"""What is asked of chain and provider for one node: its SDL, compiled, with the node's environment in it."""

from collections.abc import Callable, Mapping

import msgspec

from config.model import AkashSettings
from engram.provisioning.akash.compiler import compile_sdl
from engram.provisioning.akash.model import PICO
from engram.provisioning.akash.node_sdl import NODE_PORT, SERVICE, NodeOrder, node_sdl
from engram.provisioning.akash.ports import Order, Wish
from engram.provisioning.model import NodeSpec

DEPLOYMENT_VARIABLE = "ENGRAM_DEPLOYMENT"
"""Holds the deployment's number, so that no two deployments have the same manifest, and each hash names one."""


def order_maker(
    settings: AkashSettings, image: str, environment_of: Callable[[NodeSpec], Mapping[str, str]]
) -> Callable[[Wish], Order]:
    """Return what makes orders. `environment_of` gives a node's variables; they hold no secret but its launch token."""

    def order(wish: Wish) -> Order:
        environment = {**environment_of(wish.spec), DEPLOYMENT_VARIABLE: str(wish.dseq)}
        attributes = {"region": settings.region} if settings.region and not wish.wide else {}
        compiled = compile_sdl(
            node_sdl(
                NodeOrder(
                    tier=wish.spec.tier,
                    image=image,
                    environment=environment,
                    max_price_uact=_decimal(wish.ceiling),
                    auditors=settings.auditors,
                    attributes=attributes,
                    storage_class=settings.storage_class,
                )
            )
        )
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
