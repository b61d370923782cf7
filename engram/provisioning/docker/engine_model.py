"""What an engine answers, as far as it is read here. Every field may be missing: engines differ."""

import msgspec

from engram import wire


class State(msgspec.Struct, frozen=True, rename="pascal"):
    """The state of a container."""

    status: str = ""
    """created, running, paused, restarting, removing, exited or dead."""
    running: bool = False
    paused: bool = False
    pid: int = 0
    """0 for everything that does not run."""
    exit_code: int = 0
    error: str = ""
    """Why the last start failed."""


class Config(msgspec.Struct, frozen=True, rename="pascal"):
    """What a container was created with."""

    labels: dict[str, str] | None = None
    user: str = ""


class ContainerMount(msgspec.Struct, frozen=True, rename="pascal"):
    """A folder of a container that is something else's."""

    name: str = ""
    """Of a volume."""
    destination: str = ""


class Container(msgspec.Struct, frozen=True, rename="pascal"):
    """A container as it is inspected."""

    id: str = ""
    name: str = ""
    """With a slash before it."""
    mounts: list[ContainerMount] | None = None
    state: State = State()
    config: Config = Config()

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return self.config.labels or {}


class Listed(msgspec.Struct, frozen=True, rename="pascal"):
    """A container as it is listed."""

    id: str = ""
    names: list[str] | None = None
    state: str = ""
    labels: dict[str, str] | None = None


class EngineVolume(msgspec.Struct, frozen=True, rename="pascal"):
    """A volume."""

    name: str = ""
    labels: dict[str, str] | None = None


class Volumes(msgspec.Struct, frozen=True, rename="pascal"):
    """The volumes that were asked for."""

    volumes: list[EngineVolume] | None = None


class About(msgspec.Struct, frozen=True):
    """The engine's machine, and what the engine can hold a container to."""

    cpus: int = msgspec.field(name="NCPU", default=0)
    memory_bytes: int = msgspec.field(name="MemTotal", default=0)
    memory_limit: bool = msgspec.field(name="MemoryLimit", default=False)
    cpu_quota: bool = msgspec.field(name="CpuCfsQuota", default=False)
    pids_limit: bool = msgspec.field(name="PidsLimit", default=False)
    init: str = msgspec.field(name="InitBinary", default="")
    """The program that engine runs as process 1 where a container asks for one; empty: it has none."""
    version: str = msgspec.field(name="ServerVersion", default="")


class Subject(msgspec.Struct, frozen=True, rename="pascal"):
    """What an event is about."""

    id: str = msgspec.field(name="ID", default="")
    attributes: dict[str, str] = {}


class Event(msgspec.Struct, frozen=True, rename="pascal"):
    """One event of a container."""

    action: str = ""
    actor: Subject = Subject()


class Progress(msgspec.Struct, frozen=True, rename="camel"):
    """One line of a pull: HTTP said 200 long ago, so that a failure stands here as well."""

    status: str = ""
    id: str = ""
    error: str = ""
    progress_detail: dict[str, object] | None = None


class Said(msgspec.Struct, frozen=True):
    """The body of a refusal."""

    message: str = ""
    cause: str = ""


for _type in (Container, list[Listed], EngineVolume, Volumes, About, Event, Progress, Said):
    wire.decoder(_type)
