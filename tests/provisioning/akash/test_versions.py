"""A chain that was upgraded: nothing is sold on it, and the operator is told what it does not speak."""

import pytest
import trio
from structlog.testing import capture_logs

from engram.provisioning.akash import versions
from engram.provisioning.akash.backend import AkashBackend
from engram.provisioning.backends import Backends
from engram.provisioning.errors import Unavailable
from tests.provisioning.akash.test_reports import watched
from tests.provisioning.akash.worlds import World, world

MODULES = {
    "deployment": versions.DEPLOYMENT,
    "market": versions.MARKET,
    "provider": versions.PROVIDER,
    "cert": versions.CERT,
    "bme": versions.BME,
}


def upgraded(made: World, module: str) -> None:
    for node in made.double.faults.nodes:
        node.missing = (f"/akash/{module}/",)


@pytest.mark.parametrize("module", list(MODULES))
async def test_nothing_is_sold_on_a_chain_that_speaks_another_version_of_a_module_from_the_start(
    virtual_time: None, module: str
) -> None:
    async with world() as made:
        upgraded(made, module)
        name = f"akash.{module}.{MODULES[module]}"
        with capture_logs() as logs:
            async with watched(made.backend):
                await trio.sleep(1.0)
        errors = [line for line in logs if line["event"] == "akash_unknown_version"]
        assert [line["log_level"] for line in errors] == ["error"], "once"
        assert name in errors[0]["reason"]
        backends = Backends([made.backend])
        (standing,) = await backends.look()
        assert (backends.places, standing.answers) == (0, False)
        assert name in standing.reason
        with pytest.raises(Unavailable, match=name):
            await made.backend.launch(made.spec())
        assert made.rows() == []


async def test_sales_stop_when_a_running_gateway_s_chain_is_upgraded_and_go_on_when_it_is_understood_again(
    virtual_time: None,
) -> None:
    async with world() as made:
        backend = AkashBackend(made.make_parts(probe_s=1.0))
        backends = Backends([backend])
        async with watched(backend):
            await backends.look()
            assert backends.places > 0
            upgraded(made, "cert")
            await trio.sleep(2.5)
            await backends.look()
            assert backends.places == 0
            for node in made.double.faults.nodes:
                node.missing = ()
            assert (await backends.look_at("akash")).answers
            assert backends.places > 0


async def test_one_endpoint_that_knows_no_module_stops_no_sales(virtual_time: None) -> None:
    async with world() as made:
        made.double.faults.nodes[0].missing = ("/akash/cert/", "/akash/bme/")
        await made.parts.chain.probe()
