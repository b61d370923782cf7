"""What the doctor finds of the container engine, where nodes run in one."""

from collections.abc import Iterator

from config.model import Settings
from engram.cli.doctor.finding import Finding
from engram.provisioning.docker import container
from engram.provisioning.docker.engine_model import About
from engram.provisioning.docker.factory import engine as engine_of
from engram.provisioning.errors import ProvisioningError

WHAT = "container engine"


async def engine(settings: Settings) -> list[Finding]:
    """Ask the engine what it is and whether it has the image; changes nothing. Never raises."""
    if "docker" not in settings.provisioning.chosen:
        return []
    host, image = settings.docker.host, settings.provisioning.miner_image
    try:
        found = engine_of(settings.docker)
        await found.ping()
        about, has_image = await found.about(), await found.has_image(image)
    except (ProvisioningError, ValueError) as error:
        return [Finding(WHAT, "bad", f"{host}: {error}; start it, or set docker.host")]
    return [*_engine(host, about), _image(image, has_image)]


def _engine(host: str, about: About) -> Iterator[Finding]:
    size = f"{about.cpus} processors, {about.memory_bytes / 1e9:.0f} GB"
    yield Finding(WHAT, "good", f"version {about.version or 'unknown'} at {host}: {size}")
    missing = container.not_enforced(about, storage=True)  # whether it limits volumes takes a volume to try
    if missing:
        yield Finding(WHAT, "note", f"it holds no container to its {' and '.join(missing)}: see its cgroups")


def _image(name: str, there: bool) -> Finding:
    if there:
        return Finding("image of nodes", "good", f"{name} is there")
    return Finding("image of nodes", "note", f"{name} is not there: the gateway pulls it at its start")
