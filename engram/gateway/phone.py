"""The phone client at /app: built files, read once at the start, each kept in every encoding it is served in.

| path                        | cached                                  |
|-----------------------------|-----------------------------------------|
| /app/ (/app leads there)    | asked for anew each time (ETag)         |
| /app/sw.js, icons, manifest | the same                                |
| /app/NAME-HASH.js, css, …   | for a year: another content has another name |
| /app/config.json            | the operator's name and color; not kept |
| /app/licenses.txt           | asked for anew; of the packages in there |
| /app/files.json, files.sig  | the signed list of all files; asked for anew |
| /app/sw.js, switched off    | a worker that removes the one before and what it kept |

What runs there comes from this origin alone and is no text that a script made (Trusted Types). A gateway without
built files (a checkout in which `make phone` never ran) says so at /app, and everything else works.
"""

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec
from Crypto.Signature import eddsa

from config.model import Settings
from config.rules import is_secure
from engram import wire
from engram.http.request import Answer, HeaderPairs, Request
from engram.http.router import Router
from engram.payments import short_name

FOLDER: Final = Path(__file__).with_name("phone_built")
INDEX: Final = "index.html"
HOME: Final = "/app/"
OPS: Final = "ops"
"""Files whose names begin so are the operator's, and are not served to buyers."""
WORKER: Final = "sw.js"
MANIFEST: Final = "files.json"
SIGNATURE: Final = "files.sig"
"""Of the manifest, by Ed25519 (hex)."""
DEVELOPMENT_KEY: Final = "0858fe629e537731ea35bc667df9522403ec60b4003f71cf61e8591a7a6daaaf"
"""Signs builds that are no release (phone/build/signing.ts). Everybody can compute its secret."""
_SIGNED_AS: Final = b"engram-build-1:"

CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types svelte-trusted-html engram"
)
_GUARDS: Final[HeaderPairs] = (
    ("Content-Security-Policy", CSP),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), microphone=(), geolocation=(), payment=()"),
)
"""Of pages and of the worker, which has a policy of its own."""
_GUARDS_OF_PARTS: Final[HeaderPairs] = (
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
"""Of what a page loads: the page's policy holds there, and a kilobyte less a file is a tenth of the first load."""
_FOR_A_YEAR: Final = "public, max-age=31536000, immutable"
_FINGERPRINTED: Final = re.compile(r".+-[A-Za-z0-9_-]{8}\.(?:js|css|woff2)\Z")
_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "woff2": "font/woff2",
    "webmanifest": "application/manifest+json",
    "json": "application/json",
    "txt": "text/plain; charset=utf-8",
    "sig": "text/plain; charset=us-ascii",
}
_ENCODINGS: Final = (("br", "br"), ("gzip", "gz"))
"""Content codings, the best first, with the ending of the file that holds each."""
_ZERO: Final = re.compile(r";\s*q=0(?:\.0*)?\s*\Z")

_NOT_BUILT: Final = (
    "<!doctype html><meta charset=utf-8><title>Engram</title><h1>The app is not part of this installation</h1>"
    "<p>This gateway runs from a checkout in which the app was never built: run <code>make phone</code> (it needs "
    "Node 20 and npm) and start the gateway again. Everything else works without it.</p>"
)


_CLEAN_UP: Final = """\
self.addEventListener("install", (event) => event.waitUntil(self.skipWaiting()));
self.addEventListener("activate", (event) => event.waitUntil((async () => {
  for (const name of await caches.keys()) if (name.startsWith("engram-")) await caches.delete(name);
  await self.registration.unregister();
})()));
"""
"""A browser keeps a worker, and opens the app from what it holds, until another worker takes its place: a 404 does not
end it. Windows that are open go on; what the app keeps of its own (keys, purchases) stays."""


class BuiltFile(msgspec.Struct, frozen=True):
    """A file as it is served."""

    name: str
    media: str
    etag: str
    bodies: Mapping[str, bytes]
    """By content coding; "" is the file as it is."""

    @property
    def cache(self) -> str:
        """Its Cache-Control."""
        return _FOR_A_YEAR if _FINGERPRINTED.match(self.name) else "no-cache"


class PhoneBuild(msgspec.Struct, frozen=True):
    """What a build wrote down of itself."""

    build: str
    """Names the build: a digest of all its files."""
    files: dict[str, str]
    """SHA-256 (hex) of each file, by name."""
    key: str = ""
    """Ed25519 public key (hex) that signed this list; empty in a build from before there were any."""


_MANIFEST: Final = wire.decoder(PhoneBuild)


class PhoneConfig(msgspec.Struct, frozen=True):
    """What the app learns of its operator."""

    name: str
    accent: str
    network: str


class DamagedBuild(Exception):
    """A built file is missing or is not the one that was built."""


def read_manifest(folder: Path = FOLDER) -> PhoneBuild | None:
    """Return what the build wrote down of itself; None where nothing was built. Raises DamagedBuild."""
    try:
        return _MANIFEST.decode((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise DamagedBuild(f"{folder / MANIFEST} cannot be read: {error}; run `make phone`") from None


@lru_cache(maxsize=4)
def read_built(folder: Path = FOLDER) -> tuple[BuiltFile, ...]:
    """Return the built files; none where nothing was built. Raises DamagedBuild for one that was changed."""
    manifest = read_manifest(folder)
    if manifest is None:
        return ()
    files = [_read(folder, name, digest) for name, digest in manifest.files.items()]
    return (*files, *(_listed(folder, name) for name in (MANIFEST, SIGNATURE) if (folder / name).is_file()))


def signed_by(folder: Path = FOLDER) -> str | None:
    """Return the key (hex) that signed the build; None where the signature does not hold. Raises DamagedBuild."""
    build = read_manifest(folder)
    try:
        content, signature = (folder / MANIFEST).read_bytes(), (folder / SIGNATURE).read_text("ascii").strip()
        key = eddsa.import_public_key(bytes.fromhex(build.key if build else ""))
        eddsa.new(key, "rfc8032").verify(_SIGNED_AS + content, bytes.fromhex(signature))
    except (OSError, ValueError):
        return None
    return build.key if build else None


def _listed(folder: Path, name: str) -> BuiltFile:
    """Return the list of the files, or its signature, which cannot list themselves."""
    content = (folder / name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return BuiltFile(name, _TYPES[name.rpartition(".")[2]], f'"{digest[:32]}"', {"": content})


def _read(folder: Path, name: str, digest: str) -> BuiltFile:
    try:
        bodies = {"": (folder / name).read_bytes()}
    except OSError as error:
        raise DamagedBuild(f"{folder / name} cannot be read: {error}; run `make phone`") from None
    if hashlib.sha256(bodies[""]).hexdigest() != digest:
        raise DamagedBuild(f"{folder / name} is not the file that was built; run `make phone`")
    for coding, ending in _ENCODINGS:
        if (compressed := folder / f"{name}.{ending}").is_file():
            bodies[coding] = compressed.read_bytes()
    return BuiltFile(name, _TYPES.get(name.rpartition(".")[2], "application/octet-stream"), f'"{digest[:32]}"', bodies)


def is_served(settings: Settings) -> bool:
    """Return whether the app is served."""
    return settings.phone.serve == "on" or (settings.phone.serve == "auto" and is_secure(settings))


def bind_phone(router: Router, settings: Settings, folder: Path = FOLDER) -> None:
    """Serve the app where it is on; where it is off, the worker that takes it away from browsers that have it."""
    if not is_served(settings):
        worker = Answer(200, _CLEAN_UP.encode(), (("Cache-Control", "no-cache"), *_GUARDS), _TYPES["js"])

        async def clean_up(_: Request) -> Answer:
            return worker

        router.add("GET", f"{HOME}{WORKER}", clean_up, hot=True)
        return
    built = read_built(folder)
    config = msgspec.json.encode(
        PhoneConfig(settings.phone.name, settings.phone.accent, short_name(settings.payments.network))
    )

    async def lead(_: Request) -> Answer:
        return Answer(308, b"", (("Location", HOME), ("Cache-Control", "no-cache")), media="")

    async def show_config(_: Request) -> Answer:
        return Answer(200, config, (("Cache-Control", "no-cache"), ("X-Content-Type-Options", "nosniff")))

    async def say_not_built(_: Request) -> Answer:
        return Answer(503, _NOT_BUILT.encode(), (("Cache-Control", "no-store"), *_GUARDS), _TYPES["html"])

    router.add("GET", HOME.rstrip("/"), lead, hot=True)
    router.add("GET", f"{HOME}config.json", show_config, hot=True)
    if not built:
        router.add("GET", HOME, say_not_built, hot=True)
    for file in built:
        if not file.name.startswith(OPS):
            router.add("GET", HOME if file.name == INDEX else f"{HOME}{file.name}", _Served(file), hot=True)


def bind_ops_page(router: Router, folder: Path = FOLDER) -> None:
    """Serve the operator's page at / of the operator's listener; it reads /status and /ready and changes nothing."""
    for file in read_built(folder):
        if file.name == f"{OPS}.html":
            router.add("GET", "/", _Served(file), hot=True)
        elif file.name not in (INDEX, WORKER):
            router.add("GET", f"{HOME}{file.name}", _Served(file), hot=True)


class _Served:
    """Answers with one file. Headers are made once."""

    def __init__(self, file: BuiltFile) -> None:
        guards = _GUARDS if file.name.endswith(".html") or file.name == WORKER else _GUARDS_OF_PARTS
        common = (("Cache-Control", file.cache), ("ETag", file.etag), ("Vary", "Accept-Encoding"), *guards)
        self._etag = file.etag
        self._unchanged = Answer(304, b"", common, media="")
        self._answers = {
            coding: Answer(200, body, (*common, ("Content-Encoding", coding)) if coding else common, file.media)
            for coding, body in file.bodies.items()
        }

    async def __call__(self, request: Request) -> Answer:
        if (known := request.header(b"if-none-match")) is not None and self._etag in known:
            return self._unchanged
        return self._answers[chosen_coding(request.header(b"accept-encoding") or "", self._answers)]


def chosen_coding(accepted: str, available: Mapping[str, object]) -> str:
    """Return the best content coding that an Accept-Encoding header allows; "" for none (RFC 9110, 12.5.3).

    >>> chosen_coding("gzip, deflate, br", {"": 0, "br": 0, "gzip": 0}), chosen_coding("br;q=0, gzip", {"": 0, "br": 0})
    ('br', '')
    """
    allowed = {part.partition(";")[0].strip().lower() for part in accepted.split(",") if not _ZERO.search(part)}
    return next((coding for coding, _ in _ENCODINGS if coding in available and coding in allowed), "")
