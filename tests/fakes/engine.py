"""A container engine that does what no real one can be made to do. Nothing runs in it; `faults` are what goes wrong."""

import json
import re
import tarfile
from collections.abc import AsyncIterator, Callable
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

import trio

from tests.fakes.responder import Answer, Asked, Responder

Fault = Callable[[], Answer | None]
"""Answers in the engine's place; None drops the connection."""


class EngineDouble:
    """Its containers by name, and the version it offers."""

    def __init__(self, api_version: str = "1.41") -> None:
        self.api_version = api_version
        self.containers: dict[str, dict[str, Any]] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        """By volume: a container that is removed leaves them."""
        self.volumes: dict[str, dict[str, Any]] = {}
        self.limited_by = ""
        """The option of a volume that its file system can limit: `size` of Docker, `o` of Podman, or none."""
        self.is_podman = False
        self.images = {"engram-node:latest"}
        self.pulls: list[list[dict[str, Any]]] = []
        """The lines of the next pulls; the last one that brings no error brings the image."""
        self.before: dict[str, list[Fault]] = {}
        """By call: answers given instead of doing it."""
        self.after: dict[str, list[Fault]] = {}
        """By call: answers given instead of the true one, when it was done."""
        self.removing_for = 0
        """So many looks at a container that is told to go still see it."""
        self.calls: list[str] = []
        self.paths: list[str] = []
        self.responder = Responder(self._answer)

    async def serve(self, nursery: trio.Nursery) -> str:
        """Serve until the nursery ends; returns the engine's address as settings have it."""
        url: str = await nursery.start(self.responder.run)
        return url.replace("http://", "tcp://")

    async def _answer(self, asked: Asked) -> Answer | None:
        path, call = urlsplit(asked.target).path, self._call(asked)
        self.calls.append(call)
        self.paths.append(path)
        if self.before.get(call):
            return self.before[call].pop(0)()
        answer = self._done(call, asked)
        if self.after.get(call):
            return self.after[call].pop(0)()
        return answer

    def _call(self, asked: Asked) -> str:
        path = re.sub(r"^/v[0-9.]+", "", urlsplit(asked.target).path)
        if path in ("/_ping", "/info", "/events"):
            return path[1:]
        if path.startswith("/volumes"):
            return {"GET": "volume" if path.count("/") > 1 else "volumes", "DELETE": "unmake"}.get(asked.method, "make")
        if path.startswith("/images/"):
            return "pull" if path == "/images/create" else "image"
        if path in ("/containers/json", "/containers/create"):
            return path.rpartition("/")[2].replace("json", "list")
        last = path.rpartition("/")[2]
        return {"json": "inspect", "archive": asked.method.lower()}.get(
            last, "remove" if asked.method == "DELETE" else last
        )

    def _done(self, call: str, asked: Asked) -> Answer:
        query = {name: values[0] for name, values in parse_qs(urlsplit(asked.target).query).items()}
        parts = re.sub(r"^/v[0-9.]+", "", urlsplit(asked.target).path).split("/")
        name = parts[2] if len(parts) > 2 else ""
        if name in {held["Id"] for held in self.containers.values()}:
            name = next(known for known, held in self.containers.items() if held["Id"] == name)
        match call:
            case "_ping":
                podman = {"Libpod-API-Version": "4.3.1"} if self.is_podman else {}
                return 200, {"Api-Version": self.api_version, **podman}, b"OK"
            case "info":
                about = {
                    "NCPU": 4,
                    "MemTotal": 8 * 1024**3,
                    "MemoryLimit": True,
                    "CpuCfsQuota": True,
                    "PidsLimit": True,
                }
                return said(200, about)
            case "image":
                return said(200 if parts[2] in self.images else 404, {"message": "no such image"})
            case "pull":
                return self._pull(query["fromImage"])
            case "events":
                return 200, {}, _silence()
            case "list":
                wanted = dict(label.split("=", 1) for label in json.loads(query["filters"])["label"])
                return said(200, [_listed(held) for held in self.containers.values() if _has(held, wanted)])
            case "volumes":
                wanted = dict(label.split("=", 1) for label in json.loads(query["filters"])["label"])
                found = [each for each in self.volumes.values() if each["Labels"].items() >= wanted.items()]
                return said(200, {"Volumes": found})
            case "volume":
                return (
                    said(200, self.volumes[name]) if name in self.volumes else said(404, {"message": "no such volume"})
                )
            case "make":
                return self._make(json.loads(asked.body))
            case "unmake":
                return self._unmake(name)
            case "create":
                return self._create(query["name"], json.loads(asked.body))
            case _ if name not in self.containers:
                return said(404, {"message": f"No such container: {name}"})
            case "inspect":
                return self._inspect(name)
            case "start":
                self.run(name)
                return 204, {}, b""
            case "stop" | "kill":
                self.end(name)
                return 204, {}, b""
            case "put":
                volume = self.containers[name]["Mounts"][0]["Name"]
                with tarfile.open(fileobj=BytesIO(asked.body)) as archive:
                    self.files[volume] |= {m.name: (archive.extractfile(m) or BytesIO()).read() for m in archive}
                return 200, {}, b""
            case "remove":
                return self._remove(name)
            case _:
                return said(404, {"message": f"no such call: {call}"})

    def _make(self, body: dict[str, Any]) -> Answer:
        """Podman takes an option it does not know, and does nothing of it."""
        refused = body["DriverOpts"].keys() - {self.limited_by}
        if refused and not (self.is_podman and refused == {"size"}):
            return said(400, {"message": "quota size requested but no quota support"})
        self.volumes.setdefault(body["Name"], body)
        self.files.setdefault(body["Name"], {})
        return said(201, self.volumes[body["Name"]])

    def _unmake(self, name: str) -> Answer:
        if name not in self.volumes:
            return said(404, {"message": "no such volume"})
        if any(held["Mounts"][0]["Name"] == name for held in self.containers.values()):
            return said(409, {"message": "volume is in use"})
        del self.volumes[name], self.files[name]
        return 204, {}, b""

    def _create(self, name: str, body: dict[str, Any]) -> Answer:
        if name in self.containers:
            return said(409, {"message": f"the name {name} is in use"})
        if body["Image"] not in self.images:
            return said(404, {"message": "no such image"})
        state = {"Status": "created", "Running": False, "Paused": False, "Pid": 0, "ExitCode": 0, "Error": ""}
        config = {"Labels": body["Labels"], "User": "65532:65532"}
        volume, _, folder = body["HostConfig"]["Binds"][0].partition(":")
        self.containers[name] = {
            "Id": f"{len(self.calls):064x}",
            "Name": f"/{name}",
            "State": state,
            "Config": config,
            "Mounts": [{"Type": "volume", "Name": volume, "Destination": folder}],
            "Asked": body,
        }
        return said(201, {"Id": self.containers[name]["Id"]})

    def _inspect(self, name: str) -> Answer:
        held = self.containers[name]
        answer = said(200, {part: held[part] for part in ("Id", "Name", "State", "Config", "Mounts")})
        if held["State"]["Status"] == "removing":
            self.removing_for -= 1
            if self.removing_for < 0:
                del self.containers[name]
                return said(404, {"message": "gone"})
        return answer

    def _remove(self, name: str) -> Answer:
        if self.removing_for:
            self.containers[name]["State"] |= {"Status": "removing", "Running": False, "Pid": 0}
            return said(409, {"message": "removal of container is already in progress"})
        del self.containers[name]
        return 204, {}, b""

    def _pull(self, image: str) -> Answer:
        lines = self.pulls.pop(0) if self.pulls else []
        if not any("error" in line for line in lines):
            self.images.add(image)
        return 200, {}, b"".join(json.dumps(line).encode() + b"\r\n" for line in lines)

    def rename(self, name: str, other: str) -> None:
        """Somebody renames a container."""
        self.containers[other] = self.containers.pop(name) | {"Name": f"/{other}"}

    def run(self, name: str) -> None:
        """The container runs."""
        self.containers[name]["State"] |= {"Status": "running", "Running": True, "Pid": 4242}

    def end(self, name: str) -> None:
        """The container has ended."""
        self.containers[name]["State"] |= {"Status": "exited", "Running": False, "Pid": 0, "ExitCode": 137}


def said(status: int, body: object) -> Answer:
    """A JSON answer."""
    return status, {"Content-Type": "application/json"}, json.dumps(body).encode()


def dropped() -> None:
    """The connection ends without an answer."""


async def _silence() -> AsyncIterator[bytes]:
    while True:
        await trio.sleep(3_600.0)
        yield b"\n"


def _has(held: dict[str, Any], wanted: dict[str, str]) -> bool:
    return bool(held["Config"]["Labels"].items() >= wanted.items())


def _listed(held: dict[str, Any]) -> dict[str, Any]:
    return {
        "Id": held["Id"],
        "Names": [held["Name"]],
        "State": held["State"]["Status"],
        "Labels": held["Config"]["Labels"],
    }
